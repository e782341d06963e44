"""A map against the truth, worked by hand."""

import numpy as np
import pytest

from medfusion.explain.truth import against

MASK = np.zeros((20, 20), bool)
MASK[5:10, 5:10] = True


def test_a_map_that_is_the_mask_is_perfect():
    found = against(MASK.astype(np.float32), MASK)
    assert (found.points, found.energy, found.iou, found.by_chance) == (True, 1, 1, 25 / 400)


def test_an_even_map_has_the_energy_of_chance():
    found = against(np.full((20, 20), 0.5, np.float32), MASK)
    assert found.energy == pytest.approx(found.by_chance)
    assert found.iou < 0.1


def test_half_in_and_half_out_by_hand():
    heat = np.zeros((20, 20), np.float32)
    heat[5:10, 8:12] = 0.5  # ten of its twenty pixels are inside
    heat[5, 8] = 1
    found = against(heat, MASK)
    assert found.points
    assert found.energy == pytest.approx((9 * 0.5 + 1) / (19 * 0.5 + 1))
    assert found.iou == pytest.approx(10 / 35)


@pytest.mark.parametrize(("column", "hits"), [(10, True), (11, False)])  # 1.3 px of tolerance at 20 px
def test_the_pointing_game_allows_a_near_miss(column, hits):
    heat = np.zeros((20, 20), np.float32)
    heat[7, column] = 1
    assert against(heat, MASK).points == hits


def test_a_map_without_evidence_finds_nothing_and_an_empty_mask_is_refused():
    empty = np.zeros((20, 20), np.float32)
    assert against(empty, MASK) == against(empty, MASK)
    assert not against(empty, MASK).points
    for wrong in (np.zeros((20, 20), bool), np.ones((4, 4), bool)):
        with pytest.raises(ValueError, match="mask"):
            against(empty, wrong)
