"""Occlusion (Zeiler & Fergus 2014, section 4.2) through Captum: cover a square, see how the log-odds fall."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from captum.attr import Occlusion
from torch import Tensor

from medfusion.errors import ExplanationError
from medfusion.explain.contract import Attribution, Progress
from medfusion.inference import class_log_odds
from medfusion.library import Model
from medfusion.preprocess import to_batch

BATCH = 32


@dataclass(frozen=True)
class OcclusionSettings:
    square_px: int = 32  # of the model's input
    stride_px: int = 16

    def __post_init__(self) -> None:
        if not 1 <= self.stride_px <= self.square_px:
            raise ExplanationError("Occlusion needs 1 px or more of stride, and squares no smaller. Choose others.")


def attribute(
    model: Model, picture: np.ndarray, target_index: int, seed: int, settings: OcclusionSettings, progress: Progress
) -> Attribution:
    """Each pixel carries the mean fall of the log-odds over the squares that cover it. Squares show the mean colour."""
    batch = to_batch(picture, model.card.input).to(model.device)
    height, width = (-(-(side - settings.square_px) // settings.stride_px) + 1 for side in batch.shape[-2:])
    passes, expected = 0, 1 + -(-height * width // BATCH)

    def answer(pictures: Tensor) -> Tensor:
        nonlocal passes
        progress(min(1.0, passes / expected))
        passes += 1
        return class_log_odds(model, pictures)

    found = Occlusion(answer).attribute(
        batch,
        sliding_window_shapes=(3, settings.square_px, settings.square_px),
        strides=(3, settings.stride_px, settings.stride_px),
        baselines=batch.mean((2, 3), keepdim=True).expand_as(batch),
        target=target_index,
        perturbations_per_eval=BATCH,
    )
    progress(1.0)
    return Attribution(found[0].mean(0).float().cpu().numpy(), "bilinear")
