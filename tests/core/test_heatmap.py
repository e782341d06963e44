"""From a method's grid to the scan's: each place stays where it was, and nothing is stretched out of nothing."""

import numpy as np
import pytest

from medfusion.errors import ExplanationError
from medfusion.explain.heatmap import positive_part, signed_part, to_scan_grid

SIZES = [(224, 224), (300, 500), (500, 300), (1001, 77), (20, 30)]


@pytest.mark.parametrize("resampling", ["bilinear", "bicubic"])
@pytest.mark.parametrize(("height_px", "width_px"), SIZES)
def test_a_spot_stays_on_the_same_part_of_the_scan(height_px, width_px, resampling):
    raw = np.zeros((7, 10), np.float32)
    raw[2, 8] = 1
    on_scan = to_scan_grid(raw, height_px, width_px, resampling)
    assert on_scan.shape == (height_px, width_px)
    y, x = np.mgrid[:height_px, :width_px] + 0.5
    centre = (on_scan * y).sum() / on_scan.sum(), (on_scan * x).sum() / on_scan.sum()
    assert centre == pytest.approx((2.5 / 7 * height_px, 8.5 / 10 * width_px), abs=1)


def test_a_ramp_keeps_its_value_at_every_pixel():
    ramp = np.tile(np.arange(4, dtype=np.float32)[:, None], (1, 3))
    on_scan = to_scan_grid(ramp, 8, 3)
    # Two pixels a cell: centres lie a quarter of a cell before and after the cell's own; flat at the border.
    assert on_scan[:, 1] == pytest.approx([0, 0.25, 0.75, 1.25, 1.75, 2.25, 2.75, 3])


def test_a_peak_of_a_few_large_cells_lies_between_the_strongest_and_nothing_goes_beyond_them():
    raw = np.zeros((7, 7), np.float32)
    raw[3, 3], raw[3, 4] = 1, 0.9
    on_scan = to_scan_grid(raw, 224, 224, "bicubic")
    assert np.argwhere(positive_part(on_scan) == 1)[:, 1].mean() == pytest.approx(4 * 32, abs=9)
    assert (on_scan.min(), on_scan.max()) == (0, 1)
    assert to_scan_grid(-raw - 0.1, 224, 224, "bicubic").max() < 0  # no support is swung into being


def test_a_map_of_the_scan_s_own_size_is_unchanged():
    raw = np.random.default_rng(0).normal(size=(9, 5)).astype(np.float32)
    assert np.array_equal(to_scan_grid(raw, 9, 5), raw)
    assert np.array_equal(to_scan_grid(raw, 9, 5, "nearest-exact"), raw)


def test_nearest_keeps_the_edges_of_superpixels():
    raw = np.array([[1, 2], [3, 4]], np.float32)
    expected = np.repeat(np.repeat(raw, 3, axis=0), 5, axis=1)
    assert np.array_equal(to_scan_grid(raw, 6, 10, "nearest-exact"), expected)


def test_positive_part_is_divided_by_its_peak():
    assert positive_part(np.array([[-8.0, 0, 2, 4]])).tolist() == [[0, 0, 0.5, 1]]


def test_signed_part_is_divided_by_the_largest_absolute_value():
    assert signed_part(np.array([[-8.0, 0, 2, 4]])).tolist() == [[-1, 0, 0.25, 0.5]]


def test_a_map_without_positive_evidence_stays_zero():
    assert not positive_part(np.full((3, 3), -2.0)).any()
    for part in (positive_part, signed_part):
        assert not part(np.zeros((3, 3))).any()


@pytest.mark.parametrize("part", [positive_part, signed_part])
def test_maps_are_float32(part):
    assert part(np.ones((2, 2), np.float64)).dtype == np.float32


@pytest.mark.parametrize("part", [positive_part, signed_part])
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_a_map_that_is_not_made_of_numbers_is_an_error(part, value):
    with pytest.raises(ExplanationError, match="Choose another model"):
        part(np.array([[0.0, value]]))


def strongest(heatmap):
    return np.unravel_index(heatmap.argmax(), heatmap.shape)


def test_of_equal_places_the_strongest_is_in_the_middle():
    flat = np.zeros((200, 100))
    flat[60:101, 40:61] = 4
    flat[150, 80] = 3.99
    heatmap = positive_part(flat)
    assert strongest(heatmap) == (pytest.approx(80, abs=2), pytest.approx(50, abs=1))
    assert (heatmap[60:101, 40:61] >= 0.999).all()
    assert heatmap[150, 80] == pytest.approx(3.99 / 4)
    assert heatmap.max() == 1


def test_of_equal_places_the_strongest_has_the_strongest_neighbours():
    flat = np.zeros((224, 224))
    flat[80:120, 80:120] = 4
    flat[80:120, 120:160] = 3
    heatmap = positive_part(flat)
    assert 98 <= strongest(heatmap)[0] <= 102
    assert 104 <= strongest(heatmap)[1] < 120  # what was planted there lies across the two
    assert heatmap[100, 130] == 0.75


def test_a_map_of_equal_places_is_strongest_away_from_its_rim():
    heatmap = positive_part(np.full((30, 50), 7.0))
    assert heatmap[strongest(heatmap)] == 1
    assert heatmap.min() >= 0.999
    assert strongest(heatmap) > (5, 10)  # not its corner


def test_of_equal_places_the_closest_look_decides():
    closer = np.zeros((30, 50), np.float32)
    closer[4, 7] = 0.3
    heatmap = positive_part(np.full((30, 50), 7.0), closer)
    assert strongest(heatmap) == (4, 7)
    assert heatmap.min() > 0.998
    assert positive_part(np.array([[1.0, 2.0]]), np.array([[9.0, 0.0]])).tolist() == [[0.5, 1]]  # of unequal ones not
    assert strongest(positive_part(np.full((30, 50), 7.0), 0 * closer)) == strongest(
        positive_part(np.full((30, 50), 7.0))
    )
