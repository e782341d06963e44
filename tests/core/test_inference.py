"""What a logit, a probability and an answer mean, worked by hand for the three tasks."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from medfusion.inference import (
    answer_indices,
    class_logits,
    input_warnings,
    looks_grey,
    predict,
    score,
    to_probabilities,
)
from medfusion.library import Model
from medfusion.types import OperatingPoint, Route, Scan, Task
from tests.core.toy_networks import model_of, scan_of


class Brightness(nn.Module):
    """Logit c is weights[c] times the mean intensity, 0 for black and 1 for white."""

    def __init__(self, *weights: float) -> None:
        super().__init__()
        self.register_buffer("weights", torch.tensor(weights))

    def forward(self, x: Tensor) -> Tensor:
        return x.mean((1, 2, 3))[:, None] * self.weights


def model(*weights: float, task: Task, classes: tuple[str, ...], temperature: float = 1.0) -> Model:
    made = model_of(Brightness(*weights), classes, task)
    return replace(made, card=replace(made.card, temperature=temperature))


def grey(value: int, height: int = 64, width: int = 64) -> np.ndarray:
    return np.full((height, width), value, np.uint8)


def checkerboard() -> np.ndarray:
    return (np.indices((64, 64)).sum(axis=0) % 2 * 255).astype(np.uint8)


def point(*thresholds: float) -> OperatingPoint:
    return OperatingPoint(thresholds, "For tests.")


@pytest.mark.parametrize("z", [-3.0, 0.0, 0.7, 20.0])
def test_a_binary_logit_becomes_two_class_logits_with_the_same_probability(z):
    scores = class_logits(torch.tensor([[z]]), "binary")
    assert scores.tolist() == [pytest.approx([-z / 2, z / 2])]
    negative, positive = to_probabilities(scores, "binary")[0].tolist()
    assert positive == pytest.approx(1 / (1 + math.exp(-z)))
    assert negative + positive == pytest.approx(1)


@pytest.mark.parametrize("task", ["multiclass", "multilabel"])
def test_other_tasks_keep_their_logits(task):
    logits = torch.tensor([[1.0, -2.0, 0.5]])
    assert torch.equal(class_logits(logits, task), logits)


def test_temperature_divides_the_logits():
    scores = torch.tensor([[0.0, 2 * math.log(3)]])
    assert to_probabilities(scores, "multiclass", 2.0)[0].tolist() == pytest.approx([0.25, 0.75])
    assert to_probabilities(scores, "multiclass", 1.0)[0].tolist() == pytest.approx([0.1, 0.9])
    # A binary z of 2 · ln 3 at temperature 2 is sigmoid(ln 3).
    halved = class_logits(torch.tensor([[2 * math.log(3)]]), "binary")
    assert to_probabilities(halved, "binary", 2.0)[0, 1].item() == pytest.approx(0.75)


def test_multilabel_probabilities_stand_each_on_their_own():
    scores = torch.tensor([[0.0, math.log(3), 2 * math.log(3)]])
    assert to_probabilities(scores, "multilabel")[0].tolist() == pytest.approx([0.5, 0.75, 0.9])


@pytest.mark.parametrize(
    ("probability", "answer"), [(0.29, 0), (0.3, 1), (0.31, 1)], ids=["below", "at the threshold", "above"]
)
def test_binary_answers_the_second_class_from_its_threshold_on(probability, answer):
    assert answer_indices(np.array([1 - probability, probability]), point(0.7, 0.3), "binary") == (answer,)


def test_multiclass_answers_the_largest_probability_per_threshold():
    probabilities = np.array([0.5, 0.3, 0.2])
    assert answer_indices(probabilities, point(1, 1, 1), "multiclass") == (0,)
    assert answer_indices(probabilities, point(1, 0.5, 0.5), "multiclass") == (1,)  # 0.5, 0.6, 0.4


def test_multilabel_answers_all_classes_that_reach_their_threshold():
    probabilities = np.array([0.5, 0.3, 0.2])
    assert answer_indices(probabilities, point(0.5, 0.4, 0.1), "multilabel") == (0, 2)
    assert answer_indices(probabilities, point(0.9, 0.9, 0.9), "multilabel") == ()


def test_score_is_the_calibrated_probability_of_each_picture():
    two = model(2 * math.log(3), task="binary", classes=("clear", "ill"), temperature=2.0)
    stack = np.repeat(np.stack([grey(0), grey(255)])[..., None], 3, axis=3)
    np.testing.assert_allclose(score(two, stack), [[0.5, 0.5], [0.25, 0.75]], rtol=1e-6)


def test_predict_carries_answer_and_origin():
    two = model(2 * math.log(3), task="binary", classes=("clear", "ill"))
    two = replace(two, card=replace(two.card, operating_point=point(0.2, 0.8)))
    prediction = predict(two, scan_of(grey(0), grey(255)), frame=1)
    assert prediction.probabilities == pytest.approx((0.1, 0.9))
    assert prediction.answers == ("ill",)
    assert (prediction.model_id, prediction.model_version, prediction.scan_sha256) == ("toy", "1", "5ca")
    assert prediction.frame == 1
    assert prediction.classes == ("clear", "ill")
    assert prediction.elapsed_s > 0
    assert predict(two, scan_of(grey(0), grey(255)), frame=0).answers == ("clear",)


def test_predict_may_answer_several_classes_or_none_of_a_multilabel_model():
    three = model(5.0, 4.0, -5.0, task="multilabel", classes=("a", "b", "c"))
    assert predict(three, scan_of(grey(255))).answers == ("a", "b")
    strict = replace(three, card=replace(three.card, operating_point=point(1, 1, 1)))
    assert predict(strict, scan_of(grey(255))).answers == ()


def test_predict_reads_white_on_black_as_the_file_asks():
    two = model(2 * math.log(3), task="binary", classes=("clear", "ill"))
    scan = scan_of(grey(0))
    assert predict(two, scan).probabilities[1] == pytest.approx(0.5)
    assert predict(two, replace(scan, inverted=True)).probabilities[1] == pytest.approx(0.9)  # black shown white


def test_predict_leaves_no_gradients():
    network = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(3, 2))
    made = model_of(network, ("a", "b"))
    predict(made, scan_of(checkerboard()))
    assert not network.training
    assert all(p.grad is None and not p.requires_grad for p in network.parameters())


def warnings_of(scan: Scan, colour: bool = False, codes: tuple[str, ...] = ()) -> list[str]:
    card = replace(model_of(Brightness(1.0, 2.0), ("a", "b")).card, colour=colour, dicom_modalities=codes)
    return input_warnings(card, scan, scan.frames[0])


def test_a_fitting_picture_gets_no_warning():
    assert warnings_of(scan_of(checkerboard())) == []
    assert warnings_of(replace(scan_of(checkerboard()), modality="DX"), codes=("CR", "DX")) == []


def test_another_modality_is_named():
    (warning,) = warnings_of(replace(scan_of(checkerboard()), modality="CT"), codes=("CR", "DX"))
    assert "says that it is CT" in warning


def test_a_modality_in_the_header_is_believed_over_the_colours():
    scan = replace(scan_of(np.repeat(checkerboard()[..., None], 3, axis=2)), modality="OP")
    assert warnings_of(scan, colour=True, codes=("OP",)) == []


@pytest.mark.parametrize(("colour", "word"), [(True, "grey"), (False, "coloured")])
def test_colours_that_do_not_fit_the_model_are_named(colour, word):
    frame = np.repeat(checkerboard()[..., None], 3, axis=2)
    if not colour:
        frame[..., 2] = 0
    (warning,) = warnings_of(scan_of(frame), colour=colour)
    assert f"This picture is {word}" in warning


def test_colours_are_looked_at_where_the_router_does_not_know_the_model():
    made = model(1.0, task="binary", classes=("a", "b"))
    frame = np.repeat(checkerboard()[..., None], 3, axis=2)
    card = replace(made.card, colour=True)
    (warning,) = input_warnings(card, scan_of(frame), frame, Route(None, "Of none.", {"another": 4.0}))
    assert "This picture is grey" in warning
    assert input_warnings(card, scan_of(frame), frame, Route(card.id, "Of this.", {card.id: 0.2})) == []


def test_a_uniform_picture_is_named():
    faint = grey(100)
    faint[0, 0] = 107
    (warning,) = warnings_of(scan_of(faint))
    assert "almost uniform" in warning
    faint[0, 0] = 108
    assert warnings_of(scan_of(faint)) == []


def test_a_picture_under_half_the_models_size_is_named():
    board = checkerboard()
    (warning,) = warnings_of(scan_of(board[:31]))
    assert "only 31 px" in warning
    assert warnings_of(scan_of(board[:32])) == []


def test_grey_tolerates_the_tint_of_a_scanner_but_no_colour():
    tinted = np.repeat(checkerboard()[..., None], 3, axis=2)
    tinted[..., 0] = np.minimum(tinted[..., 0], 244)  # 11 on white pixels, 5.5 on average
    assert looks_grey(tinted)
    tinted[..., 0] = 0  # 255 on white pixels
    assert not looks_grey(tinted)
    assert looks_grey(grey(5))
