"""Figures of evaluation, each against an answer worked by hand."""

import math

import numpy as np
import pytest
from scipy.stats import norm
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


ILL = np.array([True, True, False, False])


def test_delong_by_hand():
    # first: pairs (3,2) (3,0) (1,0) right, (1,2) wrong: 3/4; shares won by ill cases 1, 1/2 and over well ones 1/2, 1,
    # each of variance 1/8; second: all right, no variance. So 1/4 over the root of 1/16 + 1/16.
    first, second = np.array([3.0, 1, 2, 0]), np.array([3.0, 3, 2, 0])
    by_hand = math.erfc(0.25 / math.sqrt(1 / 8) / math.sqrt(2))
    assert metrics.delong(first, second, ILL) == pytest.approx(by_hand)
    assert metrics.delong(second, first, ILL) == pytest.approx(by_hand)
    assert metrics.delong(10 * first - 7, np.exp(second), ILL) == pytest.approx(by_hand)  # ranks are all that counts


def two_scores(rng, cases=150, skill=0.0):
    """Two scores that err together in part; the second is surer by some skill."""
    positive = np.arange(cases) % 3 == 0
    both = rng.normal(size=cases)
    first, second = (positive + both + rng.normal(size=cases) for _ in range(2))
    return first, second + skill * positive, positive


def test_delong_agrees_with_a_bootstrap():
    rng = np.random.default_rng(5)
    first, second, positive = two_scores(rng, skill=0.6)

    def gap(rows):
        stacked = [np.stack([-score, score], axis=1)[rows] for score in (first, second)]
        return metrics.auroc(stacked[1], positive[rows].astype(int)) - metrics.auroc(
            stacked[0], positive[rows].astype(int)
        )

    gaps = [gap(rng.integers(150, size=150)) for _ in range(2000)]
    z = norm.isf(metrics.delong(first, second, positive) / 2)
    assert z == pytest.approx(gap(np.arange(150)) / np.std(gaps), rel=0.1)


def test_delong_cries_wolf_as_often_as_it_says():
    rng = np.random.default_rng(6)
    found = [metrics.delong(*two_scores(rng)) for _ in range(600)]
    assert np.mean(np.array(found) < 0.05) == pytest.approx(0.05, abs=0.025)  # nearly 3 standard errors
    assert np.mean(np.array(found) < 0.5) == pytest.approx(0.5, abs=0.06)


def test_delong_of_a_score_with_itself_is_one():
    score = np.random.default_rng(1).normal(size=40)
    assert metrics.delong(score, score, np.arange(40) < 9) == 1
    assert metrics.delong(score, 2 * score + 1, np.arange(40) < 9) == 1


def test_delong_says_nothing_where_a_class_is_absent_or_has_a_single_case():
    score, other = np.array([0.1, 0.9, 0.3, 0.4]), np.array([0.9, 0.1, 0.3, 0.4])
    for positive in ([False] * 4, [True] * 4, [True, False, False, False], [True, True, True, False]):
        assert math.isnan(metrics.delong(score, other, np.array(positive)))


def test_mcnemar_by_hand():
    first_only, second_only, both, none = 1, 9, 30, 5
    first = np.array([True] * first_only + [False] * second_only + [True] * both + [False] * none)
    second = np.array([False] * first_only + [True] * second_only + [True] * both + [False] * none)
    assert metrics.mcnemar(first, second) == pytest.approx(22 / 1024)  # of ten tosses 0, 1, 9 or 10: 1 + 10 + 10 + 1
    assert metrics.mcnemar(second, first) == pytest.approx(22 / 1024)
    assert metrics.mcnemar(first, first) == 1
    assert metrics.mcnemar(np.array([True, False]), np.array([False, True])) == 1


def share_right(_, labels, answers):
    return float((answers == labels).mean())


def test_a_difference_counts_what_the_second_gains_and_its_interval_is_that_of_pairs():
    labels = np.tile([0, 1], 100)
    first, second = labels.copy(), labels.copy()
    first[:60] = 1 - first[:60]  # 140 of 200 right
    second[:50] = 1 - second[:50]  # the same errors but ten: 150 of 200
    unused = np.zeros((200, 2))
    draws = metrics.resamples([str(i) for i in range(200)])
    gain = metrics.difference(share_right, (unused, first), (unused, second), labels, draws)
    assert gain.value == pytest.approx(0.05)
    assert 0 < gain.low < 0.05 < gain.high
    spread = math.sqrt(0.05 * 0.95 / 200)  # ten of 200 pairs differ
    assert (gain.high - gain.low) / 2 == pytest.approx(1.96 * spread, rel=0.15)
    alone = [metrics.interval(share_right, unused, labels, answers, draws) for answers in (first, second)]
    unpaired = math.hypot(*((one.high - one.low) for one in alone))
    assert gain.high - gain.low < 0.5 * unpaired
    loss = metrics.difference(share_right, (unused, second), (unused, first), labels, draws)
    assert (loss.value, loss.low, loss.high) == pytest.approx((-gain.value, -gain.high, -gain.low))


def test_a_difference_draws_whole_patients():
    labels = np.zeros(100, dtype=int)
    first, second = np.ones(100, dtype=int), (np.arange(100) >= 50).astype(int)  # the first half is gained
    unused = np.zeros((100, 2))
    many, few = (metrics.resamples([str(i // each) for i in range(100)]) for each in (1, 25))
    wide, narrow = (
        metrics.difference(share_right, (unused, first), (unused, second), labels, draws) for draws in (few, many)
    )
    assert wide.high - wide.low > 2 * (narrow.high - narrow.low)


def test_a_difference_without_a_class_is_no_number():
    p, labels = np.full((4, 2), 0.5), np.zeros(4, dtype=int)
    gain = metrics.difference(
        lambda p, y, a: metrics.auroc(p, y), (p, labels), (p, labels), labels, metrics.resamples(list("abcd"))
    )
    assert all(math.isnan(value) for value in (gain.value, gain.low, gain.high))


SEVERAL = np.array([[1, 1], [1, 0], [0, 0], [0, 1]])  # labels of four cases, of two classes
TOLD = np.array([[0.9, 0.6], [0.3, 0.2], [0.4, 0.7], [0.2, 0.8]])


def test_figures_of_several_labels_are_those_of_each_class():
    # class 0: .9 beats both, .3 beats one of (.4, .2); class 1: .6 and .8 against .2 and .7
    assert metrics.auroc(TOLD, SEVERAL) == pytest.approx((3 / 4 + 3 / 4) / 2)
    answers = (TOLD >= 0.5).astype(int)  # 1 1, 0 0, 0 1, 0 1
    assert metrics.sensitivity(answers, SEVERAL, 0) == 1 / 2
    assert metrics.specificity(answers, SEVERAL, 0) == 1.0
    assert metrics.balanced_accuracy(answers, SEVERAL) == pytest.approx((1 / 2 + 1 + 1 + 1 / 2) / 4)
    squares = [0.1, 0.4, 0.7, 0.2, 0.4, 0.7, 0.2, 0.2]
    assert metrics.brier(TOLD, SEVERAL) == pytest.approx(sum(x * x for x in squares) / 8)
    found = metrics.report(TOLD, SEVERAL, answers, ("a", "b"))
    assert found["accuracy"]["value"] == 6 / 8
    assert [row["n"] for row in found["per_class"].values()] == [2, 2]


def test_calibration_of_several_labels_counts_each_yes_and_no():
    probabilities = np.array([[0.81, 0.19], [0.81, 0.19]])  # four decisions at 81 %, three of them right
    labels = np.array([[1, 0], [0, 0]])
    assert metrics.expected_calibration_error(probabilities, labels) == pytest.approx(abs(3 / 4 - 0.81))
