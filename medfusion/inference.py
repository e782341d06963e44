"""From pictures to calibrated answers. One meaning of a logit, a probability and an answer for the whole project."""

from __future__ import annotations

import time

import numpy as np
import torch
from torch import Tensor

from medfusion.conformal import prediction_set
from medfusion.imaging import display
from medfusion.library import Model
from medfusion.preprocess import to_batch
from medfusion.types import ModelCard, OperatingPoint, Prediction, Route, Scan, Task

GREY_TOLERANCE = 12  # mean spread between colour channels, of 255, under which a picture counts as grey


def class_logits(logits: Tensor, task: Task) -> Tensor:
    """Network outputs (B, outputs) to one logit for each class (B, K).

    A binary network has one output z for its second class; the pair (-z/2, z/2) has the same softmax as sigmoid(z).
    """
    return torch.cat([-logits / 2, logits / 2], dim=1) if task == "binary" else logits


def to_probabilities(scores: Tensor, task: Task, temperature: float = 1.0) -> Tensor:
    """Class logits (B, K) to calibrated probabilities (B, K) (Guo et al. 2017, eq. 9)."""
    scaled = scores / temperature
    return scaled.sigmoid() if task == "multilabel" else scaled.softmax(dim=1)


def log_odds(scores: Tensor, task: Task) -> Tensor:
    """log(p / (1 - p)) of the probabilities of class logits (B, K), without passing through a rounded p."""
    if task == "multilabel":
        return scores
    itself = torch.eye(scores.shape[1], dtype=torch.bool, device=scores.device)
    others = scores[:, None, :].masked_fill(itself, -torch.inf).logsumexp(2)
    return scores - others


def class_log_odds(model: Model, batch: Tensor) -> Tensor:
    """Log-odds (B, K) of the calibrated probabilities of many (B, 3, h, w), zero-centred; none is shown by itself."""
    return calibrated_log_odds(model.logits(batch, many=True), model.card)


def calibrated_log_odds(logits: Tensor, card: ModelCard) -> Tensor:
    """Network outputs (B, outputs) to the log-odds (B, K) of the calibrated probabilities."""
    return log_odds(class_logits(logits, card.task) / card.temperature, card.task)


def answer_indices(probabilities: np.ndarray, point: OperatingPoint, task: Task) -> tuple[int, ...]:
    """Which classes are answered for one case. probabilities: (K,)."""
    thresholds = np.asarray(point.thresholds)
    if task == "multilabel":
        return tuple(np.flatnonzero(probabilities >= thresholds).tolist())
    if task == "binary":
        return (int(probabilities[1] >= thresholds[1]),)
    return (int(np.argmax(probabilities / thresholds)),)


def score(model: Model, pictures: np.ndarray) -> np.ndarray:
    """Calibrated probabilities (B, K) float32 of display pictures: (H, W[, 3]) or (B, H, W, 3), uint8."""
    batch = to_batch(pictures, model.card.input).to(model.device)
    scores = class_logits(model.logits(batch), model.card.task)
    return to_probabilities(scores, model.card.task, model.card.temperature).cpu().numpy()


def predict(model: Model, scan: Scan, frame: int = 0, route: Route | None = None) -> Prediction:
    """Answer one frame. The model sees the scan as its file asks to be shown, whatever the viewer's window.

    route: where the scan belongs; another model than that answers with a warning, and says so in `override`.
    """
    started = time.perf_counter()
    picture = display(scan, frame)
    card = model.card
    probabilities = score(model, picture)[0]
    answers = answer_indices(probabilities, card.operating_point, card.task)
    return Prediction(
        model_id=card.id,
        model_version=card.version,
        scan_sha256=scan.sha256,
        frame=frame,
        classes=card.classes,
        probabilities=tuple(float(p) for p in probabilities),
        answers=tuple(card.classes[i] for i in answers),
        operating_point=card.operating_point,
        warnings=tuple(input_warnings(card, scan, picture, route)),
        elapsed_s=time.perf_counter() - started,
        plausible=plausible(card, probabilities),
        override=override(card, route),
    )


def plausible(card: ModelCard, probabilities: np.ndarray) -> tuple[str, ...] | None:
    """The conformal set of one case by name, None when the card has no thresholds for it. probabilities: (K,)."""
    if not card.set_thresholds or card.task == "multilabel":
        return None
    answer, *_ = answer_indices(probabilities, card.operating_point, card.task)
    return tuple(card.classes[i] for i in prediction_set(probabilities, card.set_thresholds, answer))


def override(card: ModelCard, route: Route | None) -> str | None:
    """Why the router would not have chosen this model, in words; None where it would, or has no say on it."""
    if route is None or card.id not in route.distances or route.model_id == card.id:
        return None
    return f"By itself the program would not choose this model. {route.reason}"


def input_warnings(card: ModelCard, scan: Scan, picture: np.ndarray, route: Route | None = None) -> list[str]:
    """Reasons to distrust the answer that the input itself gives, in sentences for the reader."""
    against = override(card, route)
    warnings = [against] if against else []
    if scan.modality and card.dicom_modalities and scan.modality not in card.dicom_modalities:
        warnings.append(
            f"This scan says that it is {scan.modality}; the model reads {card.modality} only. Choose another model."
        )
    elif route and route.distances.get(card.id, 0) > 1:
        warnings.append(
            f"This picture does not look like those that the model was trained on ({card.modality}). "
            "The answer means nothing unless you know better."
        )
    elif not (route and card.id in route.distances) and not scan.modality and looks_grey(picture) == card.colour:
        kind = "grey" if card.colour else "coloured"
        warnings.append(f"This picture is {kind}; the model reads {card.modality} only. Choose another model.")
    if picture.max() - picture.min() < 8:
        warnings.append("This picture is almost uniform: there is nothing in it to read.")
    smallest = min(scan.height_px, scan.width_px)
    if smallest < min(card.input.height_px, card.input.width_px) // 2:
        warnings.append(
            f"This picture is only {smallest} px on its short side: details that the model needs are missing."
        )
    return warnings


def looks_grey(picture: np.ndarray) -> bool:
    """Whether a display picture carries no colour to speak of."""
    if picture.ndim == 2:
        return True
    return float(np.ptp(picture.astype(np.int16), axis=2).mean()) < GREY_TOLERANCE
