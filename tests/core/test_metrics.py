"""Figures of evaluation, each against an answer worked by hand."""

import math

import numpy as np
import pytest
from sklearn.metrics import average_precision_score, roc_auc_score

from medfusion import metrics


def test_auroc_is_the_share_of_pairs_in_the_right_order():
    probabilities = np.array([[0.9, 0.1], [0.6, 0.4], [0.65, 0.35], [0.2, 0.8]])
    labels = np.array([0, 0, 1, 1])  # pairs: (.1,.35) (.1,.8) (.4,.8) right, (.4,.35) wrong
    assert metrics.auroc(probabilities, labels) == pytest.approx(3 / 4)


def test_auroc_of_three_classes_is_the_plain_mean_over_classes():
    probabilities = np.array([[0.8, 0.1, 0.1], [0.1, 0.8, 0.1], [0.1, 0.1, 0.8], [0.5, 0.3, 0.2]])
    labels = np.array([0, 1, 2, 2])
    # class 0: one of three others below .8 each time: 1; class 1: 1; class 2: pairs (.8, .2) against (.1, .1): 1
    assert metrics.auroc(probabilities, labels) == pytest.approx(1.0)
    labels = np.array([2, 1, 2, 0])  # class 0: .5 beats two of three; class 1: 1; class 2: 2.5 of 4
    assert metrics.auroc(probabilities, labels) == pytest.approx((2 / 3 + 1 + 2.5 / 4) / 3)


def test_auroc_says_nothing_when_a_class_is_absent():
    assert math.isnan(metrics.auroc(np.array([[0.9, 0.1], [0.2, 0.8]]), np.array([1, 1])))


def test_a_tie_counts_half_in_auroc():
    probabilities = np.array([[0.5, 0.5], [0.7, 0.3], [0.5, 0.5]])
    assert metrics.auroc(probabilities, np.array([0, 0, 1])) == pytest.approx((1 + 0.5) / 2)


def test_average_precision_is_the_precision_at_each_case_of_the_class():
    probabilities = np.array([[0.9, 0.1], [0.2, 0.8], [0.3, 0.7], [0.4, 0.6]])
    labels = np.array([0, 1, 0, 1])  # by probability: hit, miss, hit, miss: precision 1/1 and 2/3
    assert metrics.average_precision(probabilities, labels, 1) == pytest.approx((1 + 2 / 3) / 2)


def test_a_tie_is_one_step_of_average_precision_whatever_the_order_of_the_cases():
    probabilities = np.array([[0.5, 0.5]] * 4)
    for labels in (np.array([1, 0, 0, 0]), np.array([0, 0, 0, 1])):
        assert metrics.average_precision(probabilities, labels, 1) == pytest.approx(1 / 4)


def test_ranking_agrees_with_scikit_learn():
    rng = np.random.default_rng(1)
    labels = np.repeat([0, 1, 2], [20, 30, 50])
    probabilities = np.round(rng.dirichlet(np.ones(3), 100), 1)  # many ties
    for k in range(3):
        truth, chance = labels == k, probabilities[:, k]
        assert metrics.auroc_of_class(probabilities, labels, k) == pytest.approx(roc_auc_score(truth, chance))
        assert metrics.average_precision(probabilities, labels, k) == pytest.approx(
            average_precision_score(truth, chance)
        )


def test_ranking_says_nothing_of_a_class_that_is_absent():
    probabilities, labels = np.array([[0.9, 0.1], [0.2, 0.8]]), np.array([0, 0])
    assert math.isnan(metrics.auroc_of_class(probabilities, labels, 1))
    assert math.isnan(metrics.auroc_of_class(probabilities, labels, 0))
    assert math.isnan(metrics.average_precision(probabilities, labels, 1))


def test_calibration_error_is_the_gap_weighted_by_the_share_of_cases():
    probabilities = np.array([[0.9, 0.1]] * 4 + [[0.4, 0.6]] * 4)
    labels = np.array([0, 0, 0, 1, 1, 1, 0, 0])  # four times 0.9 said and 3/4 right; 0.6 said and 2/4 right
    expected = 0.5 * (0.9 - 0.75) + 0.5 * (0.6 - 0.5)
    assert metrics.expected_calibration_error(probabilities, labels) == pytest.approx(expected)


def test_brier_is_zero_for_certain_truth_and_two_for_certain_error():
    certain = np.array([[1.0, 0.0]])
    assert metrics.brier(certain, np.array([0])) == 0
    assert metrics.brier(certain, np.array([1])) == 2


def test_sensitivity_and_specificity_count_answers_not_probabilities():
    labels = np.array([0, 0, 0, 1, 1])
    answers = np.array([0, 0, 1, 1, 0])
    assert metrics.sensitivity(answers, labels, 1) == pytest.approx(1 / 2)
    assert metrics.specificity(answers, labels, 1) == pytest.approx(2 / 3)
    assert metrics.balanced_accuracy(answers, labels) == pytest.approx((2 / 3 + 1 / 2) / 2)


def test_report_holds_the_point_estimate_inside_its_interval_and_is_the_same_each_time():
    rng = np.random.default_rng(3)
    labels = rng.integers(0, 2, 200)
    positive = np.clip(0.5 + 0.25 * (2 * labels - 1) + rng.normal(0, 0.25, 200), 0.01, 0.99)
    probabilities = np.stack([1 - positive, positive], axis=1)
    report = metrics.report(probabilities, labels, (positive > 0.5).astype(int), ("well", "ill"))
    for name in ("accuracy", "balanced_accuracy", "auroc", "brier"):
        figure = report[name]
        assert figure["low"] < figure["value"] < figure["high"]
    half_width = (report["accuracy"]["high"] - report["accuracy"]["low"]) / 2
    p = report["accuracy"]["value"]
    assert half_width == pytest.approx(1.96 * math.sqrt(p * (1 - p) / 200), rel=0.2)  # Wald, by hand
    assert report == metrics.report(probabilities, labels, (positive > 0.5).astype(int), ("well", "ill"))


def test_interval_widens_when_pictures_belong_to_few_patients():
    labels = np.tile([0, 1], 50)
    answers = np.where(np.arange(100) < 50, labels, 1 - labels)  # the first patients all right, the others all wrong
    probabilities = np.full((100, 2), 0.5)
    alone = metrics.report(probabilities, labels, answers, ("a", "b"))["accuracy"]
    grouped = metrics.report(probabilities, labels, answers, ("a", "b"), [str(i // 25) for i in range(100)])["accuracy"]
    assert grouped["high"] - grouped["low"] > 2 * (alone["high"] - alone["low"])
