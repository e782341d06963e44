"""A private copy of a network that answers many pictures quickly. The shared network stays as it is."""

from __future__ import annotations

import copy
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from medfusion.network import MedFusionNet


class InFloat32(nn.Module):
    """A head that is spared the rounding: logits of bfloat16 come in steps of 1/128 of their size."""

    def __init__(self, head: nn.Linear) -> None:
        super().__init__()
        self.head = copy.deepcopy(head).float()

    def forward(self, features: Tensor) -> Tensor:
        return self.head(features.float())


def quick_copy(network: MedFusionNet, bfloat16: bool) -> tuple[MedFusionNet, torch.dtype]:
    """The network with its batch norms folded, and the dtype that it takes: bfloat16 if that is asked for.

    A network without batch norms is returned as it is.
    """
    if not any(isinstance(module, nn.BatchNorm2d) for module in network.modules()):
        return network, torch.float32
    folded = copy.deepcopy(network)
    for module in folded.modules():
        if isinstance(module, nn.Sequential):
            fold(module)
    if not bfloat16:
        return folded, torch.float32
    folded.bfloat16()
    folded.head = InFloat32(network.head)  # type: ignore[assignment]
    return folded, torch.bfloat16


def fold(layers: nn.Sequential) -> None:
    """Each convolution takes over the batch norm behind it, in place (Jacob et al. 2018, section 3.2)."""
    for index, (conv, norm) in enumerate(pairwise(list(layers))):
        if isinstance(conv, nn.Conv2d) and isinstance(norm, nn.BatchNorm2d):
            layers[index] = fuse_conv_bn_eval(conv, norm).to(memory_format=torch.channels_last)
            layers[index + 1] = nn.Identity()


def gains_from_bfloat16(device: torch.device) -> bool:
    """Whether this is a processor that multiplies bfloat16 itself; others are slower with it than with float32."""
    return device.type == "cpu" and bool(torch.cpu.get_capabilities().get("avx512_bf16"))
