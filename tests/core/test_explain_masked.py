"""Masked pictures put together from parts get the answers of whole ones, to the last bit."""

import numpy as np
import pytest
import torch

from medfusion.explain import masked as subject
from medfusion.explain.lime import balanced_draws
from tests.core.test_backend import lively
from tests.core.toy_networks import one_class_a_quadrant

COUNT = 64  # masked pictures asked for


def grid(height: int, width: int, side: int) -> np.ndarray:
    """Square superpixels, row by row."""
    rows, columns = np.mgrid[:height, :width] // side
    return rows * (width // side) + columns


def noise(seed: int) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (64, 96, 3), np.uint8)


def both(segments: np.ndarray, rows: np.ndarray, most: int = COUNT) -> tuple[object, torch.Tensor, torch.Tensor]:
    """What answers, its answers, and those of whole pictures."""
    model = lively()
    found = subject.answers(model, noise(0), noise(1), segments, most)
    return found, found(rows), subject.Whole(model, pair(model), segments)(rows)


def pair(model) -> torch.Tensor:
    return subject.to_batch(np.stack([noise(0), noise(1)]), model.card.input).contiguous()


@pytest.mark.parametrize("side", [32, 48])
def test_answers_from_parts_are_those_of_whole_pictures(side):
    segments = grid(64, 96, side)
    rows = balanced_draws(COUNT, int(segments.max()) + 1, np.random.RandomState(0))
    found, parts, whole = both(segments, rows)
    assert isinstance(found, subject.Patchwork)
    assert torch.equal(parts, whole)
    assert parts.std(0).min() > 0.01  # rows differ


def test_so_they_are_where_a_cell_sees_every_superpixel():
    """All four meet in the middle: no colour is left to make their number even."""
    segments = np.kron([[0, 1], [2, 3]], np.ones((32, 48), int))
    rows = (np.arange(16)[:, None] >> np.arange(4)) & 1
    found, parts, whole = both(segments, rows)
    assert isinstance(found, subject.Patchwork)
    assert torch.equal(parts, whole)


def test_so_they_are_for_ragged_superpixels():
    segments = ragged()
    rows = balanced_draws(2048, int(segments.max()) + 1, np.random.RandomState(0))[:40]
    found, parts, whole = both(segments, rows, most=2048)
    assert isinstance(found, subject.Patchwork)
    assert torch.equal(parts, whole)


def ragged() -> np.ndarray:
    """Each pixel belongs to the nearest of nine points."""
    points = np.random.default_rng(3).uniform(0, 1, (9, 2)) * (64, 96)
    places = np.stack(np.mgrid[:64, :96], axis=-1)
    return np.linalg.norm(places[:, :, None] - points, axis=-1).argmin(-1)


def test_few_answers_and_frayed_superpixels_are_not_worth_it():
    segments = grid(64, 96, 32)
    rows = balanced_draws(4, 6, np.random.RandomState(0))
    assert isinstance(both(segments, rows, most=4)[0], subject.Whole)
    frayed = np.arange(64 * 96).reshape(64, 96) % 12
    assert isinstance(both(frayed, np.ones((1, 12), int))[0], subject.Whole)


def test_networks_that_are_not_compiled_answer_whole_pictures():
    model = one_class_a_quadrant()
    found = subject.answers(model, noise(0)[:64, :64], noise(1)[:64, :64], grid(64, 64, 32), COUNT)
    assert isinstance(found, subject.Whole)
    assert found(np.ones((3, 4), int)).shape == (3, 4)


def test_a_cell_of_the_early_map_sees_the_window_around_its_pixel():
    network = lively().network
    picture = torch.rand(1, 3, 64, 96, requires_grad=True)
    cells = network.early(picture)
    stride, reach = network.early_window
    assert (stride, reach) == (64 // cells.shape[2], 9)
    assert torch.equal(network.late(cells), network.extract(picture))
    for row, column in ((8, 12), (0, 23)):
        (slope,) = torch.autograd.grad(cells[0, :, row, column].square().sum(), picture, retain_graph=True)
        rows, columns = (np.flatnonzero(slope.abs().sum((0, 1)).sum(axis)) for axis in (1, 0))
        assert rows.min() >= stride * row - reach and rows.max() <= stride * row + reach
        assert columns.min() >= stride * column - reach and columns.max() <= stride * column + reach


def test_cells_see_what_lies_within_reach():
    segments = np.zeros((8, 8), int)
    segments[:, 5:] = 1
    assert subject.cells_of(segments, 4, 1)[:, 0].tolist() == [[True, True], [False, True]]
    assert subject.cells_of(segments, 4, 0)[:, 0].tolist() == [[True, True], [False, False]]


def test_no_cell_sees_two_superpixels_of_one_colour():
    seen = subject.cells_of(ragged(), 4, 9)
    colours = subject.coloured(seen)
    assert all(seen[colours == colour].sum(0).max() == 1 for colour in range(colours.max() + 1))
    assert colours.max() + 1 < len(seen)


def test_masks_are_the_rows_spread_over_their_superpixels():
    places = torch.tensor([[0, 0, 1], [2, 1, 1]])
    rows = np.array([[True, False, True], [False, True, False]])
    expected = [[[[True, True, False], [True, False, False]]], [[[False, False, True], [False, True, True]]]]
    assert subject.spread(rows, places).tolist() == expected
    with torch.device("meta"):  # as on a card: the masks are made there, of the same shape
        assert subject.spread(rows, places.to("meta")).shape == (2, 1, 2, 3)
