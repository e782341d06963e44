"""What a model's README.md says of its figures, and that it says no more than the card knows."""

from collections.abc import Mapping
from dataclasses import replace

import pytest
from torch import nn

from medfusion.types import ModelCard, OperatingPoint
from tests.core.toy_networks import model_of
from training.readme import ALL, ECE_NOTE, IN_CROSS_VALIDATION, IN_SAMPLE, readme

POINT = OperatingPoint((0.5, 0.5), "The highest threshold that finds enough.", sensitivity=0.95)


def figure(value: float) -> dict[str, float]:
    return {"value": value, "low": value - 0.01, "high": value + 0.01}


def split(sensitivity: float, coverage: tuple[float | None, float]) -> dict[str, object]:
    """160 cases well and 40 ill, with the sensitivity of the ill and the coverage of both."""
    named = {name: figure(0.9) for name in ("accuracy", "balanced_accuracy", "auroc", "ece", "brier")}
    well, ill = (
        {"n": n, "sensitivity": figure(s), "specificity": figure(0.5)} for n, s in ((160, 0.9), (40, sensitivity))
    )
    sets = {"coverage": 0.9, "per_class": list(coverage), "mean_size": 1.1, "single": 0.85}
    return {"n": 200, **named, "per_class": {"well": well, "ill": ill}, "prediction_sets": sets}


def card_with(metrics: Mapping[str, object], **changes: object) -> ModelCard:
    card = model_of(nn.Identity(), ("well", "ill"), "binary").card
    return replace(card, operating_point=POINT, limits=("Toy.",), metrics=metrics, **changes)


CARD = card_with({"val": split(0.95, (0.9, 0.9)), "test": split(0.95, (0.95, 0.75))})


def test_coverage_stands_beside_what_was_promised_and_who_falls_short_is_named():
    said = readme(CARD)
    assert "class-conditional LAC" in said
    assert "| well | 0.900 | 0.900 | 0.950 (0.904 to 0.974) |" in said
    assert "| ill | 0.900 | 0.900 | 0.750 (0.598 to 0.858) |" in said
    assert f"| {ALL} | 0.900 | 0.900 | 0.900 (0.851 to 0.934) |" in said
    assert "On test these fall short of the promise by more than their interval allows: ill." in said


def test_who_falls_short_within_the_interval_is_not_named():
    near = split(0.95, (None, 0.85))  # 34 of 40: the interval reaches 0.929
    said = readme(card_with({"test": near}))
    assert "fall short" not in said
    assert "| well | 0.900 | no cases |" in said
    assert IN_SAMPLE not in said  # nothing was measured on val


def test_val_is_called_in_sample_unless_cross_validation_fitted_the_thresholds():
    assert IN_SAMPLE in readme(CARD)
    summary = {"auroc": 0.9, "accuracy": 0.8}
    crossed = {"folds": {"auroc": [0.9, 0.9]}, "mean": summary, "spread": summary, "pooled": {"n": 9}}
    said = readme(replace(CARD, metrics={**CARD.metrics, "cross_validation": crossed}))
    assert IN_SAMPLE not in said
    assert IN_CROSS_VALIDATION in said
    assert "fitted on the answers of cross-validation: calibration error" in said


def test_a_sensitivity_below_what_the_operating_point_promised_is_a_limit():
    assert "With the weights as saved" not in readme(CARD)
    low = card_with({"val": split(0.95, (0.9, 0.9)), "test": split(0.93, (0.9, 0.9))})
    limits = readme(low).split("## Limits")[1].split("## Results")[0]
    assert "find at least 95 % of ill among validation cases" in limits
    assert "it finds 0.930 (0.920 to 0.940) on test." in limits
    assert "well" not in limits
    promised_nothing = replace(low, operating_point=OperatingPoint((1.0, 1.0), "The most probable class."))
    assert "With the weights as saved" not in readme(promised_nothing)


def test_offsets_of_classes_are_told_where_there_are_any():
    assert "Offsets" not in readme(CARD)
    said = readme(replace(CARD, class_offsets=(-0.25, 0.25)))
    assert "fitted with it, part of the weights: well -0.25, ill +0.25 before scaling." in said


def test_calibration_before_scaling_is_said_where_it_is_known():
    known = replace(CARD, metrics={**CARD.metrics, "val_ece_before_temperature": 0.123})
    said = readme(known)
    assert (
        "fitted on val: calibration error on val 0.123 before, 0.900 after; on test 0.900 after, not measured" in said
    )
    both = replace(known, metrics={**known.metrics, "test_ece_before_temperature": 0.234})
    assert "on test 0.234 before, 0.900 after." in readme(both)
    assert said.count(ECE_NOTE) == 1


@pytest.mark.parametrize(
    ("training", "words"),
    [
        ({"share_of_training": 0.6}, "the last training learned (60 %) and of its start (40 %)"),
        ({"share_of_training": 1.0, "averaged_seeds": [2, 0]}, "the average of seeds 2, 0 (model soups"),
        ({"share_of_training": 1.0, "averaged_seeds": [2]}, "Nothing of the start is mixed in"),
        ({"averaged_seeds": [2], "config": {"seeds": 3}}, "Of 3 seeds, 2 is kept alone"),
    ],
)
def test_what_the_weights_are_averages_of_is_said_in_words(training, words):
    assert words in readme(replace(CARD, training=training))
    assert words not in readme(CARD)


def test_all_losses_to_worse_pictures_are_told():
    drops = {"noise": {"1": 0.01, "3": 0.02}, "text": {"1": -0.0002, "3": 0.04}}
    found = {"n": 9, "auroc": 0.9, "drops": drops, "mean_drop": 0.03}
    said = readme(replace(CARD, metrics={**CARD.metrics, "robustness": found}))
    assert "|  | severity 1 | severity 3 |" in said
    assert "| noise | 0.010 | 0.020 |" in said
    assert "| text | 0.000 | 0.040 |" in said
    assert "milder than those of ImageNet-C" in said
