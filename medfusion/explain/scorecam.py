"""Score-CAM (Wang 2020): show only what one channel of a map marks, and see what that alone is worth to the class.

Each channel's weight is its increase of the log-odds over a picture with everything hidden (eq. 4 to 6). The package
puts these increases through a softmax, which gives a class that ignores the picture a map as strong as any; left out,
the weights keep their sign, and no increase is no evidence. Hence our own few lines.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from medfusion.explain.cam import GRIDS, CamSettings
from medfusion.explain.contract import Attribution, Progress
from medfusion.explain.heatmap import stretched
from medfusion.explain.sight import shift_of
from medfusion.inference import class_log_odds
from medfusion.library import Model
from medfusion.preprocess import to_batch

BATCH = 32


@torch.no_grad()
def attribute(
    model: Model, picture: np.ndarray, target_index: int, seed: int, settings: CamSettings, progress: Progress
) -> Attribution:
    """The signed map before the paper's ReLU (eq. 6). Hidden places have the colour that the network calls zero."""
    progress(0.0)
    batch = to_batch(picture, model.card.input).to(model.device)
    channels = getattr(model.features(batch), GRIDS[settings.grid])[0]
    shift = shift_of(model)
    height, width = batch.shape[2:]
    masks = torch.cat([batch.new_zeros(1, height, width), stretched(to_range(channels), height, width, shift)])
    worth: list[Tensor] = []
    for start in range(0, len(masks), BATCH):
        progress(start / len(masks))
        shown = batch * masks[start : start + BATCH, None]
        worth.extend(class_log_odds(model, shown)[:, target_index])
    gains = torch.stack(worth[1:]) - worth[0]
    progress(1.0)
    return Attribution((gains[:, None, None] * channels).sum(0).float().cpu().numpy(), "bilinear", shift=shift)


def to_range(channels: Tensor) -> Tensor:
    """(C, h, w), each channel to 0..1; one that is the same everywhere marks nothing (eq. 5)."""
    low, high = channels.amin((1, 2), keepdim=True), channels.amax((1, 2), keepdim=True)
    return (channels - low) / (high - low).clamp_min(torch.finfo(channels.dtype).tiny)
