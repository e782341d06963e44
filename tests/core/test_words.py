"""The sentence under a map, for maps made by hand."""

import numpy as np
import pytest

from medfusion.explain import describe
from medfusion.explain.words import CAUTIONS, degenerate, ninths
from medfusion.types import Explanation


def explanation(signed: np.ndarray, target_name: str = "pneumonia", **more) -> Explanation:
    signed = signed.astype(np.float32)
    return Explanation(
        method="gradcam",
        target_index=1,
        target_name=target_name,
        heatmap=signed.clip(0),
        signed=signed,
        raw=signed,
        evidence=signed,
        model_id="toy",
        model_version="1",
        scan_sha256="5ca",
        frame=0,
        seed=None,
        settings={},
        elapsed_s=0.0,
        **more,
    )


def spot(row: int, column: int) -> np.ndarray:
    """(90, 120), bright in one of the nine parts."""
    heatmap = np.zeros((90, 120))
    heatmap[30 * row + 5 : 30 * row + 25, 40 * column + 5 : 40 * column + 35] = 1
    return heatmap


@pytest.mark.parametrize(
    ("row", "column", "place"),
    [
        (0, 0, "upper left"),
        (0, 1, "upper centre"),
        (1, 1, "centre"),
        (1, 2, "middle right"),
        (2, 0, "lower left"),
        (2, 2, "lower right"),
    ],
)
def test_the_place_is_named_as_the_viewer_sees_it(row, column, place):
    assert f"for pneumonia lies mostly in the {place} of the picture" in describe(explanation(spot(row, column)))


def test_the_share_of_that_part_is_given():
    heatmap = 3 * spot(2, 0) / 4 + spot(0, 2) / 4  # 0.75 of it below, on the left
    assert "lower left of the picture, as you look at it: 75 % of it" in describe(explanation(heatmap))


def test_an_even_map_is_spread_over_the_picture():
    sentence = describe(explanation(np.ones((90, 120))))
    assert sentence.startswith("The positive evidence for pneumonia is spread over the picture")
    assert "11 %" in sentence


def test_an_all_zero_map_says_that_there_is_no_positive_evidence():
    assert describe(explanation(np.zeros((9, 9)))).startswith("No positive evidence for pneumonia:")


def test_names_are_read_out_without_underscores():
    for heatmap in (spot(0, 0), np.ones((9, 9)), np.zeros((9, 9))):
        sentence = describe(explanation(heatmap, "diabetic_retinopathy"))
        assert "diabetic retinopathy" in sentence
        assert "_" not in sentence


def test_a_map_is_never_called_a_finding():
    for heatmap in (spot(1, 1), np.ones((9, 9)), np.zeros((9, 9))):
        assert "lesion" not in describe(explanation(heatmap)).lower()
    assert "not a finding" in describe(explanation(spot(1, 1)))


def test_ninths_are_shares_of_the_sum_also_where_sides_do_not_divide_by_three():
    heatmap = np.zeros((4, 5))
    heatmap[0, 0], heatmap[3, 4] = 3, 1  # thirds: rows 2, 1, 1; columns 2, 2, 1
    assert ninths(heatmap).tolist() == [[0.75, 0, 0], [0, 0, 0], [0, 0, 0.25]]


def test_a_very_narrow_map_is_described_too():
    assert "lower" in describe(explanation(np.array([[0.0], [0.0], [1.0]])))


def test_what_speaks_against_is_placed_and_weighed():
    sentence = describe(explanation(spot(0, 0) - spot(2, 2) / 3))  # a quarter of all speaks against
    assert "lies mostly in the upper left" in sentence
    assert "25 % of what the map marks speaks against it, mostly in the lower right." in sentence


def test_next_to_nothing_against_is_not_called_nothing():
    assert "Less than 1 % of what the map marks speaks against it" in describe(
        explanation(spot(0, 0) - spot(2, 2) / 1000)
    )


def test_a_map_that_only_supports_says_nothing_about_the_opposite():
    assert "against" not in describe(explanation(spot(0, 0)))


def test_how_well_a_local_model_fits_is_said_with_its_samples():
    sentence = describe(explanation(spot(0, 0), fit=0.794, samples=320))
    assert sentence.endswith("Its local model explains 79 % of the change (R²), from 320 samples.")


def test_a_map_of_no_class_never_names_one():
    for signed in (spot(0, 0) - spot(2, 2), np.ones((90, 120)) - 0.01 * spot(0, 0)):
        sentence = describe(explanation(signed, knows_class=False))
        assert sentence.startswith("The attention ")
        assert "the same for every class" in sentence
        assert "pneumonia" not in sentence
        assert "against" not in sentence


def edges() -> np.ndarray:
    """(96, 128) of ones, with zeros but for the outermost sixteenth of each side."""
    signed = np.ones((96, 128))
    signed[6:-6, 8:-8] = 0
    return signed


@pytest.mark.parametrize(
    ("signed", "kind"),
    [
        (np.ones((90, 120)), "constant"),
        (0.995 + 0.005 * spot(1, 1), "constant"),
        (-np.ones((90, 120)), "constant"),
        (-spot(1, 1), "all negative"),
        (edges(), "border only"),
        (edges() + 0.02 * (1 - edges()), "border only"),  # a faint rest inside
        (edges() + 0.2 * (1 - edges()), None),
        (spot(0, 0), None),
        (np.zeros((90, 120)), None),  # no evidence at all, which is said as such
    ],
)
def test_degenerate_maps_are_told_from_others(signed, kind):
    made = explanation(signed)
    assert degenerate(made) == kind
    assert [text for text in CAUTIONS.values() if text in describe(made)] == ([CAUTIONS[kind]] if kind else [])
