"""Prediction sets: the promise, by hand and by simulation."""

import numpy as np
import pytest

from medfusion.conformal import SLACK, covered, observed, prediction_set, thresholds


def test_thresholds_by_hand():
    own = np.arange(1, 20) / 20  # 19 cases of class 1: at 90 %, 18 of 20 ranks, so one case may be left out
    probabilities = np.stack([1 - own, own], 1)
    _, limit = thresholds(probabilities, np.ones(19, dtype=int))
    assert limit == pytest.approx(0.1 - SLACK)  # the second lowest: 18 of 19 stay inside


def test_a_class_with_too_few_cases_is_in_every_set():
    probabilities = np.full((8, 2), 0.5)
    limits = thresholds(probabilities, np.array([0] * 8))
    assert limits[1] == 0.0
    assert 1 in prediction_set(np.array([0.999, 0.001]), limits, 0)


@pytest.mark.parametrize("coverage", [0.8, 0.9, 0.95])
def test_each_class_is_covered_as_promised_even_the_rare_one(coverage):
    rng = np.random.default_rng(0)
    labels = (rng.random(60_000) < 0.1).astype(int)
    signal = np.where(labels, 1.0, -1.0) * 0.8 + rng.normal(size=labels.size)
    probabilities = np.stack([1 / (1 + np.exp(signal)), 1 / (1 + np.exp(-signal))], 1)
    half = labels.size // 2
    limits = thresholds(probabilities[:half], labels[:half], coverage)
    tops = (probabilities[half:] / limits).argmax(1)  # in all sets that are not empty
    seen = observed(probabilities[half:], labels[half:], limits, tops)
    assert seen["per_class"] == pytest.approx([coverage, coverage], abs=0.015)
    assert seen["coverage"] == pytest.approx(coverage, abs=0.015)


def test_sure_and_unsure_cases():
    limits = (0.4, 0.3)
    assert prediction_set(np.array([0.9, 0.1]), limits, 0) == (0,)
    assert prediction_set(np.array([0.55, 0.45]), limits, 0) == (0, 1)
    assert prediction_set(np.array([0.35, 0.25]), limits, 0) == ()


def test_no_set_leaves_another_class_than_the_answer():
    assert prediction_set(np.array([0.6, 0.25, 0.15]), (0.9, 0.2, 0.5), 0) == (0, 1)
    probabilities, labels = np.array([[0.6, 0.25, 0.15], [0.1, 0.1, 0.8]]), np.array([0, 2])
    seen = observed(probabilities, labels, (0.9, 0.2, 0.5), np.array([0, 2]))
    assert (seen["coverage"], seen["mean_size"], seen["single"]) == (1.0, 1.5, 0.5)


def test_coverage_is_told_with_its_interval_and_only_of_classes_that_occur():
    figures = {
        "per_class": {"well": {"n": 40}, "ill": {"n": 10}, "absent": {"n": 0}},
        "prediction_sets": {"per_class": [0.9, 0.5, None]},
    }
    seen = covered(figures)
    assert list(seen) == ["well", "ill"]
    assert seen["well"].low < 0.9 < seen["well"].high
    # Wilson's interval of 5 in 10: 1/2 ± z √(1/4/10 + z²/400) / (1 + z²/10)
    z = 1.959964
    reach = z * np.sqrt(0.025 + z**2 / 400) / (1 + z**2 / 10)
    assert (seen["ill"].low, seen["ill"].high) == pytest.approx((0.5 - reach, 0.5 + reach))
