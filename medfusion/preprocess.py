"""The one way from a picture to the network's input. Training, answers and explanations all pass through here.

The picture is squashed to the input size, whatever its aspect ratio: public training sets were published squashed,
a clinician's upload is not, and this treats both alike.
"""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from medfusion.types import InputSpec


def squash(picture: np.ndarray, spec: InputSpec) -> np.ndarray:
    """Resize one display picture, (H, W) or (H, W, 3) uint8, to (h, w, 3) uint8 of the model's size.

    Antialiased bilinear; grey is repeated to three channels.
    """
    rgb = np.repeat(picture[..., None], 3, axis=2) if picture.ndim == 2 else picture
    size = (spec.height_px, spec.width_px)
    if rgb.shape[:2] == size:
        return np.ascontiguousarray(rgb)
    planes = torch.from_numpy(np.array(rgb)).permute(2, 0, 1)[None]
    resized = F.interpolate(planes, size=size, mode="bilinear", antialias=True, align_corners=False)
    return resized[0].permute(1, 2, 0).contiguous().numpy()


def standardise(pictures: Tensor, spec: InputSpec) -> Tensor:
    """(B, 3, h, w) uint8 of the model's size to the same shape in float32, zero-centred."""
    return (pictures.float() / 255 - spec.mean) / spec.std


def to_batch(pictures: np.ndarray, spec: InputSpec) -> Tensor:
    """Standardise display pictures for the network.

    pictures: (H, W), (H, W, 3) or a stack (B, H, W, 3), uint8. Returns (B, 3, h, w) float32, channels last in memory.
    """
    stack = pictures if pictures.ndim == 4 else squash(pictures, spec)[None]
    if stack.shape[1:3] != (spec.height_px, spec.width_px):
        stack = np.stack([squash(picture, spec) for picture in stack])
    planes = torch.from_numpy(np.require(stack, requirements=("C", "W"))).permute(0, 3, 1, 2)
    return standardise(planes, spec).contiguous(memory_format=torch.channels_last)
