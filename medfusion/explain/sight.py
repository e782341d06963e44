"""Where a cell of one of the network's maps looks: seldom at the middle of its patch of the picture.

A stride-2 convolution with symmetric padding looks around even pixels, half a pixel before the middle of a pair, and
kernels trained under other padding lean further; layer by layer this grows with the stride. So it is measured, once for
each network: the centre of the effective receptive field (Luo 2016, section 2), over random pictures and channels.
"""

from __future__ import annotations

from weakref import WeakKeyDictionary

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from medfusion.library import Model
from medfusion.preprocess import to_batch

PICTURES = 8
COARSER = 4  # random pictures are drawn at a quarter of their size: without any texture many units stay silent
STEP = 0.1  # cells: finer differences are chance

_known: WeakKeyDictionary[nn.Module, float] = WeakKeyDictionary()


def shift_of(model: Model) -> float:
    """How far behind the middle of its patch a cell of the CNN map looks, down and right, in cells: negative is before.

    Tokens and deep map, which are made from its cells, look as far aside, in their own cells. Measured at the first
    call for a network.
    """
    if model.network not in _known:
        _known[model.network] = measured(model)
    return _known[model.network]


def measured(model: Model) -> float:
    spec = model.card.input
    chance = torch.Generator().manual_seed(0)
    coarse = torch.randint(0, 256, (PICTURES, 1, spec.height_px // COARSER, spec.width_px // COARSER), generator=chance)
    grey = F.interpolate(coarse.to(torch.uint8), (spec.height_px, spec.width_px), mode="bilinear")
    pictures = to_batch(grey.permute(0, 2, 3, 1).expand(-1, -1, -1, 3).numpy(), spec).to(model.device)
    with torch.enable_grad():
        cells = model.network.extract(pictures.requires_grad_())
        middle = [side // 2 for side in cells.shape[2:]]
        seen = cells[:, :, middle[0], middle[1]]
        signs = torch.randint(0, 2, seen.shape, generator=chance).to(seen) * 2 - 1  # so that no two channels cancel
        (slopes,) = torch.autograd.grad((seen * signs).sum(), pictures)
    strength = slopes.square().sum((0, 1))
    if not float(strength.sum()):
        return 0.0
    shifts = [behind(strength.sum(1 - axis), cells.shape[2 + axis], middle[axis]) for axis in (0, 1)]
    return round(sum(shifts) / 2 / STEP) * STEP


def behind(profile: Tensor, cells: int, cell: int) -> float:
    """Of a profile along one axis (pixels,), how far its centre lies behind the middle of a cell, in cells."""
    places = torch.arange(len(profile), device=profile.device) + 0.5
    return float((profile * places).sum() / profile.sum()) * cells / len(profile) - (cell + 0.5)
