"""What changed between two pictures of one patient: answers worked by hand."""

from dataclasses import replace

import numpy as np
import pytest

from medfusion.explain.change import change
from medfusion.explain.heatmap import positive_part, signed_part
from medfusion.types import Explanation


def made(evidence: list[list[float]], scan: str = "a", **more) -> Explanation:
    raw = np.array(evidence, np.float32)
    found = Explanation(
        method="gradcam", target_index=1, target_name="ill", heatmap=positive_part(raw), signed=signed_part(raw),
        raw=raw, evidence=raw, model_id="toy", model_version="1", scan_sha256=scan, frame=0, seed=None, settings={},
        elapsed_s=0.0,
    )  # fmt: skip
    return replace(found, **more)


def test_support_that_grew_is_positive_and_support_that_went_is_negative():
    then, now = made([[2, 0], [0, 0]], "a"), made([[0, 0], [0, 4]], "b")
    assert change(now, then).map == pytest.approx(np.array([[-0.5, 0], [0, 1]]), abs=0.01)  # of 4, the larger peak


def test_the_same_evidence_is_no_change_and_half_of_it_is_half_lost():
    then, now = made([[0, 2], [0, 0]], "a"), made([[0, 1], [0, 0]], "b")
    assert change(then, replace(then, scan_sha256="b")).map == pytest.approx(np.zeros((2, 2)))
    assert change(now, then).map == pytest.approx(np.array([[0, -0.5], [0, 0]]), abs=0.01)


def test_pictures_of_other_sizes_are_compared_part_by_part():
    corner = np.array([[1, 0], [0, 0]])
    now, then = (made(np.kron(corner, np.ones(size)).tolist(), str(size)) for size in ((20, 20), (40, 60)))
    found = change(now, then)
    assert found.map.shape == (40, 40)
    assert np.abs(found.map).mean() < 0.02  # but for the edges
    assert found.same_top > 0.9


def test_a_picture_without_evidence_takes_all_of_it_away():
    now, then = made([[-1, -1], [-1, -1]], "a"), made([[0, 3], [0, 0]], "b")
    found = change(now, then)
    assert found.map == pytest.approx(np.array([[0, -1], [0, 0]]), abs=0.01)
    assert np.isnan(found.rank_correlation) and found.same_top == 0
    assert not change(now, now).map.any()


@pytest.mark.parametrize("other", [{"method": "lime"}, {"model_version": "2"}, {"target_index": 0}])
def test_what_was_asked_differently_is_not_compared(other):
    one = made([[1, 0], [0, 0]])
    with pytest.raises(ValueError, match="different"):
        change(one, replace(one, **other))
