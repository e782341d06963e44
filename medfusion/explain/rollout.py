"""Attention rollout (Abnar & Zuidema 2020, section 3): which tokens the Transformer's answer is mixed from.

It is the same for every class, and sees neither the CNN before the tokens nor the deep stage beside them.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch

from medfusion.explain.contract import Attribution, Progress
from medfusion.explain.sight import shift_of
from medfusion.library import Model
from medfusion.preprocess import to_batch

EVEN = 0.01  # shares nearer than this to an even one are even: nothing stands out


@dataclass(frozen=True)
class RolloutSettings:
    """None: the paper's half of each block for the tokens themselves, mean over heads."""


@torch.no_grad()
def attribute(
    model: Model, picture: np.ndarray, target_index: int, seed: int, settings: RolloutSettings, progress: Progress
) -> Attribution:
    """By how much each token's share of the pooled answer exceeds an even share: 0 is even, -1 none, 1 twice that."""
    progress(0.0)
    cnn_map = model.features(to_batch(picture, model.card.input).to(model.device)).cnn_map
    count = cnn_map.shape[2] * cnn_map.shape[3]
    own = torch.eye(count, device=cnn_map.device)
    mixed = own
    for attention in model.network.attentions(cnn_map):
        mixed = (attention[0].mean(0) + own) / 2 @ mixed
    progress(1.0)
    excess = count * mixed.mean(0).reshape(cnn_map.shape[2:]) - 1  # tokens are pooled by their mean
    excess[excess.abs() < EVEN] = 0
    return Attribution(excess.float().cpu().numpy(), "bilinear", shift=shift_of(model))
