"""Score-CAM (Wang 2020): show only what one channel of a map marks, and see what that alone is worth to the class.

Each channel's weight is its increase of the log-odds over a picture with everything hidden (eq. 4 to 6). The package
puts these increases through a softmax, which gives a class that ignores the picture a map as strong as any; left out,
the weights keep their sign, and no increase is no evidence. Hence our own few lines.
"""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from medfusion.explain.cam import CamSettings
from medfusion.explain.contract import Attribution, Progress
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
    _, features = model.network.classify(model.network.extract(batch))
    channels = (features.cnn_map if settings.grid == "cnn" else features.token_grid)[0]
    masks = [torch.zeros_like(batch[:, :1]), *F.interpolate(stretched(channels), batch.shape[2:], mode="bilinear")]
    worth: list[Tensor] = []
    for start in range(0, len(masks), BATCH):
        progress(start / len(masks))
        shown = batch * torch.stack([mask.reshape(batch[0, :1].shape) for mask in masks[start : start + BATCH]])
        worth.extend(class_log_odds(model, shown)[:, target_index])
    gains = torch.stack(worth[1:]) - worth[0]
    progress(1.0)
    return Attribution((gains[:, None, None] * channels).sum(0).float().cpu().numpy(), "bilinear")


def stretched(channels: Tensor) -> Tensor:
    """(C, h, w) to (C, 1, h, w) in 0..1; a channel that is the same everywhere marks nothing (eq. 5)."""
    low, high = channels.amin((1, 2), keepdim=True), channels.amax((1, 2), keepdim=True)
    return ((channels - low) / (high - low).clamp_min(torch.finfo(channels.dtype).tiny))[:, None]
