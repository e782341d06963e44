"""Networks small enough to work out by hand, with the interface of MedFusionNet, and pictures to try them with.

They count bright pixels: evidence is 1 at white, 0 at mid-grey and below. A dot is nine white pixels on black, too
small to be a superpixel of its own, so hiding its superpixel by the mean colour takes exactly its evidence away.
"""

from collections.abc import Sequence

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from medfusion.library import Model
from medfusion.network import Features
from medfusion.types import InputSpec, ModelCard, OperatingPoint, Scan, Task

CELL_PX = 8  # side of a cell of the toy map
DOT_PX = 3
QUADRANTS = ("upper left", "upper right", "lower left", "lower right")


class ToyNet(nn.Module):
    """Logit of output c: the sum over quadrants q of weights[c][q] · (dots in q)."""

    def __init__(self, weights: Sequence[Sequence[float]]) -> None:
        super().__init__()
        self.head = nn.Linear(4, len(weights), bias=False)
        self.head.weight = nn.Parameter(torch.tensor(weights, dtype=torch.float32))

    def forward(self, x: Tensor, features: bool = False) -> Tensor | tuple[Tensor, Features]:
        found = self.maps(self.extract(x))
        logits = self.decide(found)
        return (logits, found) if features else logits

    def extract(self, x: Tensor) -> Tensor:
        """(B, 3, H, W) in 0..1 to dots in each cell, (B, 4, H/8, W/8): channel q is zero outside quadrant q."""
        evidence = F.relu(2 * x.mean(1, keepdim=True) - 1)
        dots = F.avg_pool2d(evidence, CELL_PX) * CELL_PX**2 / DOT_PX**2
        return dots * quadrants(dots.shape[2], dots.shape[3])

    def attentions(self, cnn_map: Tensor) -> list[Tensor]:
        """One block, one head: all look at the dots, and nowhere in particular where there are none."""
        seen = cnn_map.sum(1).flatten(1) + 1e-6
        return [(seen / seen.sum(1, keepdim=True))[:, None, None].expand(-1, 1, seen.shape[1], -1)]

    def maps(self, cnn_map: Tensor) -> Features:
        return Features(cnn_map, cnn_map, cnn_map)

    def decide(self, features: Features) -> Tensor:
        return self.head(features.deep_map.sum((2, 3)))


def quadrants(height: int, width: int) -> Tensor:
    """(4, height, width) of 0 and 1, in the order of QUADRANTS."""
    masks = torch.zeros(4, height, width)
    for index in range(4):
        masks[(index, *corner(index, height, width))] = 1
    return masks


def corner(index: int, height: int, width: int) -> tuple[slice, slice]:
    """Rows and columns of a quadrant."""
    rows = slice(0, height // 2) if index < 2 else slice(height // 2, None)
    columns = slice(0, width // 2) if index % 2 == 0 else slice(width // 2, None)
    return rows, columns


def dotted(*indices: int, height: int = 64, width: int = 64) -> np.ndarray:
    """(height, width) uint8, black with a dot in the middle of every cell of the quadrants asked for."""
    cell = np.zeros((CELL_PX, CELL_PX), np.uint8)
    cell[3 : 3 + DOT_PX, 3 : 3 + DOT_PX] = 255
    everywhere = np.tile(cell, (height // CELL_PX, width // CELL_PX))
    picture = np.zeros_like(everywhere)
    for index in indices:
        where = corner(index, height, width)
        picture[where] = everywhere[where]
    return picture


def scan_of(*frames: np.ndarray) -> Scan:
    return Scan(frames=np.stack(frames), name="toy", sha256="5ca", file_format="PNG")


def model_of(
    network: nn.Module,
    classes: Sequence[str] = QUADRANTS,
    task: Task = "multiclass",
    height_px: int = 64,
    width_px: int = 64,
) -> Model:
    """A model around any network. Its input is not centred, so that intensities stay 0..1 in the sums."""
    card = ModelCard(
        id="toy",
        title="Toy",
        version="1",
        size="tiny",
        task=task,
        classes=tuple(classes),
        modality="Toy",
        dicom_modalities=(),
        colour=False,
        input=InputSpec(height_px, width_px, mean=0.0, std=1.0),
        temperature=1.0,
        operating_point=OperatingPoint(tuple(0.5 for _ in classes), "Half."),
        weights_sha256="",
    )
    return Model(card, network, torch.device("cpu"))  # type: ignore[arg-type]  # same interface, no common base


def one_class_a_quadrant(gain: float = 0.5) -> Model:
    """Class q is answered when quadrant q is dotted."""
    return model_of(ToyNet((gain * torch.eye(4)).tolist()))
