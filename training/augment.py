"""Augmentation that suits medical pictures: what differs between sites, scanners and positioning, and nothing else.

A recipe works on one (3, h, w) uint8 picture. MixUp and CutMix are left out: on small medical sets they cost accuracy.
"""

from __future__ import annotations

import io
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
from PIL import Image
from torchvision.transforms import v2


@dataclass(frozen=True)
class Recipe:
    smallest_crop: float = 0.5  # part of the area that a random crop keeps at least
    aspect: float = 1.25  # widest stretch of a side: squashed sets meet uploads of other aspect ratios
    rotation_deg: float = 10
    flip_horizontal: float = 0.5
    flip_vertical: float = 0.0
    brightness: float = 0.25
    contrast: float = 0.3
    saturation: float = 0.0
    hue: float = 0.0
    erase: float = 0.1  # probability of one hidden rectangle
    degrade: float = 0.3  # probability each of blur, sharpening, noise, gamma and JPEG


RECIPES: Mapping[str, Recipe] = {
    "general": Recipe(saturation=0.1, hue=0.02),
    "radiograph": Recipe(brightness=0.35, contrast=0.4),
    "ultrasound": Recipe(rotation_deg=8, brightness=0.3),
    "ct": Recipe(flip_horizontal=0.5),
    "mri": Recipe(rotation_deg=15),
    "fundus": Recipe(smallest_crop=0.6, rotation_deg=25, flip_vertical=0.5, saturation=0.2, hue=0.02, erase=0.0),
    "histology": Recipe(rotation_deg=45, flip_vertical=0.5, saturation=0.3, hue=0.06),
}


class Gamma(torch.nn.Module):
    """Raise intensities to a random power, as differing display curves do."""

    def forward(self, picture: torch.Tensor) -> torch.Tensor:
        gamma = float(torch.empty(1).uniform_(-0.4, 0.4).exp())
        levels = (torch.arange(256) / 255).pow(gamma).mul(255).round().to(torch.uint8)
        return levels[picture.long()]


class Noise(torch.nn.Module):
    """Add Gaussian sensor noise of up to 4 % of the range, the same in all channels."""

    def forward(self, picture: torch.Tensor) -> torch.Tensor:
        sigma = float(torch.empty(1).uniform_(0, 10))
        noise = torch.randn(1, *picture.shape[1:]) * sigma
        return (picture + noise).round().clamp(0, 255).to(torch.uint8)


class Compression(torch.nn.Module):
    """Store and load as JPEG of random quality; Pillow, since torchvision is giving its own coder up."""

    def forward(self, picture: torch.Tensor) -> torch.Tensor:
        store = io.BytesIO()
        quality = int(torch.randint(40, 96, (1,)))
        Image.fromarray(picture.permute(1, 2, 0).numpy()).save(store, "JPEG", quality=quality)
        return torch.from_numpy(np.array(Image.open(store))).permute(2, 0, 1)


def build(recipe: Recipe, side_px: int) -> v2.Transform:
    """The random transform of one training picture to (3, side_px, side_px) uint8."""
    ratio = (1 / recipe.aspect, recipe.aspect)

    def sometimes(step: torch.nn.Module) -> v2.Transform:
        return v2.RandomApply([step], p=recipe.degrade)

    return v2.Compose(
        [
            v2.RandomRotation(recipe.rotation_deg, interpolation=v2.InterpolationMode.BILINEAR),
            v2.RandomResizedCrop(side_px, scale=(recipe.smallest_crop, 1), ratio=ratio, antialias=True),
            v2.RandomHorizontalFlip(recipe.flip_horizontal),
            v2.RandomVerticalFlip(recipe.flip_vertical),
            v2.ColorJitter(recipe.brightness, recipe.contrast, recipe.saturation, recipe.hue),
            sometimes(Gamma()),
            sometimes(v2.GaussianBlur(5, sigma=(0.2, 1.6))),
            sometimes(v2.RandomAdjustSharpness(2.0, p=1.0)),
            sometimes(Noise()),
            sometimes(Compression()),
            v2.RandomErasing(recipe.erase, scale=(0.02, 0.12)),
        ]
    )
