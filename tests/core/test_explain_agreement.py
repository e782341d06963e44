"""Agreement of two maps: figures worked by hand, and none where there is nothing to compare."""

from dataclasses import replace

import numpy as np
import pytest

from medfusion.explain import explain
from medfusion.explain.agreement import Agreement, agreement
from tests.core.toy_networks import dotted, one_class_a_quadrant, scan_of


@pytest.fixture(scope="module")
def found():
    return explain(one_class_a_quadrant(), scan_of(dotted(0)), 0, "gradcam")


def with_map(explanation, heatmap):
    return replace(explanation, heatmap=heatmap.astype(np.float32))


def test_a_map_agrees_wholly_with_itself_at_any_scale_and_size(found):
    rows = np.linspace(0, 1, 112)[:, None] * np.linspace(0.1, 1, 112)
    same = agreement(with_map(found, rows), with_map(found, np.kron(rows**3, np.ones((2, 3)))))
    assert same.rank_correlation == pytest.approx(1, abs=1e-3)
    assert same.top_overlap > 0.95


def test_opposite_maps_are_in_opposite_order_and_share_nothing_of_the_top(found):
    ramp = np.tile(np.linspace(0.01, 1, 56), (56, 1))
    opposite = agreement(with_map(found, ramp), with_map(found, ramp[:, ::-1].copy()))
    assert opposite.rank_correlation == pytest.approx(-1)
    assert opposite.top_overlap == 0


def test_unrelated_maps_share_a_tenth_of_the_top_by_chance(found):
    rng = np.random.default_rng(0)
    pairs = [agreement(*(with_map(found, rng.random((56, 56))) for _ in range(2))) for _ in range(20)]
    assert np.mean([pair.rank_correlation for pair in pairs]) == pytest.approx(0, abs=0.02)
    assert np.mean([pair.top_overlap for pair in pairs]) == pytest.approx(0.1, abs=0.02)


def test_half_of_the_top_by_hand(found):
    first, second = np.zeros((56, 56)), np.zeros((56, 56))
    first.flat[:314], second.flat[157:471] = 1, 1  # 314 of 3136 cells are the strongest tenth
    assert agreement(with_map(found, first), with_map(found, second)).top_overlap == pytest.approx(0.5)


def test_a_map_without_evidence_agrees_with_none(found):
    nothing = agreement(found, with_map(found, np.zeros((64, 64))))
    assert np.isnan(nothing.rank_correlation)
    assert np.isnan(nothing.top_overlap)


def test_maps_of_different_classes_are_not_compared(found):
    with pytest.raises(ValueError, match="different"):
        agreement(found, replace(found, target_index=1))


@pytest.mark.parametrize(
    ("correlation", "word"), [(0.95, "very strong"), (0.7, "strong"), (0.4, "moderate"), (0.2, "weak"), (-0.8, "no")]
)
def test_the_correlation_in_a_word(correlation, word):
    assert Agreement(correlation, 0.1).strength == word
