"""MedFusionNet and its rivals, built alike: (B, 3, side, side) to (B, outputs)."""

from __future__ import annotations

import statistics
import time

import timm
import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from medfusion.errors import ConfigError
from medfusion.network import build
from training.loop import begin, imagenet_weights

OURS = "medfusionnet-tiny"
RIVALS = {  # our name: timm's
    "resnet-18": "resnet18",
    "efficientnet-b0": "efficientnet_b0",
    "densenet-121": "densenet121",
    "vit-tiny-16": "vit_tiny_patch16_224",
    "vit-tiny-32": "vit_tiny_patch16_224",
    "swin-t": "swin_tiny_patch4_window7_224",
    "efficientnet-lite0": "tf_efficientnet_lite0",
}
BATCH = 8
REPEATS = 15
COST_PX = 224
# Of batch statistics, as ours. With timm's 0.01 of some, those of a short run would stay behind the weights.
MOMENTUM = 0.1


def make(name: str, outputs: int, side_px: int, start: str = "scratch", seed: int = 0) -> nn.Module:
    """start: scratch, imagenet, or the folder of a model of ours."""
    torch.manual_seed(seed)
    if name == OURS:
        network = build("tiny", outputs, seed)
        begin(network, start)
        return network
    rival = timm.create_model(RIVALS[name], num_classes=outputs, **shape_of(name, side_px))
    rival.get_classifier().reset_parameters()  # timm makes those of EfficientNets too large for a short run to mend
    if start == "imagenet":
        if name != "efficientnet-lite0":
            raise ConfigError(f"There are no ImageNet weights of {name} at hand. Start it from scratch.")
        fresh = rival.state_dict()  # the same tensors in the same order, under other names
        trained = zip(fresh, imagenet_weights().values(), strict=True)
        rival.load_state_dict({name: fresh[name] if "classifier" in name else value for name, value in trained})
    for module in rival.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.momentum = MOMENTUM
    return rival


def shape_of(name: str, side_px: int) -> dict[str, int]:
    """What a Transformer must know of its input."""
    if name.startswith("vit"):
        return {"img_size": side_px, "patch_size": int(name.rpartition("-")[2])}
    return {"img_size": side_px, "window_size": side_px // 32} if name.startswith("swin") else {}


def trained_parts(name: str, network: nn.Module, start: str) -> tuple[str, ...]:
    """Parts with trained weights: all but what this start leaves as it was drawn."""
    if start == "scratch":
        return ()
    fresh = {"head", "classifier"} | ({"embed", "encoder", "norm"} if name == OURS and start == "imagenet" else set())
    return tuple(part for part, _ in network.named_children() if part not in fresh)


def cost(name: str) -> dict[str, float]:
    """Of one network at 224 px: parameters, multiply-adds, latency, and what a training step keeps of each picture."""
    network = make(name, 2, COST_PX).eval()
    picture = torch.rand(1, 3, COST_PX, COST_PX)
    with torch.inference_mode():
        with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:  # it knows no fused attention
            network(picture)
        latency = statistics.median(elapsed_s(network, picture) for _ in range(REPEATS))
    return {
        "parameters_m": sum(p.numel() for p in network.parameters()) / 1e6,
        "gmacs": counter.get_total_flops() / 2e9,
        "latency_ms": 1000 * latency,
        "kept_mb": kept_mb(network.train(), picture.repeat(BATCH, 1, 1, 1)) / BATCH,
    }


def elapsed_s(network: nn.Module, picture: Tensor) -> float:
    started = time.perf_counter()
    network(picture)
    return time.perf_counter() - started


def kept_mb(network: nn.Module, pictures: Tensor) -> float:
    """Activations that are kept for the backward pass: most of the memory of training."""
    kept: dict[int, int] = {p.untyped_storage().data_ptr(): 0 for p in network.parameters()}

    def note(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        kept.setdefault(storage.data_ptr(), storage.nbytes())
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
        loss = network(pictures).sum()
    del loss
    return sum(kept.values()) / 2**20
