"""Integrated gradients (Sundararajan 2017) through Captum, from a black picture."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from captum.attr import IntegratedGradients
from torch import Tensor

from medfusion.errors import ExplanationError
from medfusion.explain.contract import Attribution, Progress
from medfusion.inference import class_logits
from medfusion.library import Model
from medfusion.preprocess import to_batch

BATCH = 8


@dataclass(frozen=True)
class IntegratedSettings:
    steps: int = 32

    def __post_init__(self) -> None:
        if self.steps < 2:
            raise ExplanationError("Integrated gradients need at least 2 steps. Choose more.")


def attribute(
    model: Model, picture: np.ndarray, target_index: int, seed: int, settings: IntegratedSettings, progress: Progress
) -> Attribution:
    """The signed sum over colours; all pixels together give the score less that of black (eq. 1, proposition 1)."""
    batch = to_batch(picture, model.card.input).to(model.device)
    black = to_batch(np.zeros_like(picture), model.card.input).to(model.device)
    passes, expected = 0, -(-settings.steps // BATCH)

    def answer(pictures: Tensor) -> Tensor:
        nonlocal passes
        progress(min(1.0, passes / expected))
        passes += 1
        return class_logits(model.network(pictures), model.card.task)

    with torch.enable_grad():
        found = IntegratedGradients(answer).attribute(
            batch, black, target=target_index, n_steps=settings.steps, internal_batch_size=BATCH
        )
    progress(1.0)
    return Attribution(found[0].sum(0).detach().float().cpu().numpy(), "bilinear")
