"""Class activation maps through the grad-cam package, on any of the three maps that the network hands over.

Grad-CAM (Selvaraju 2017), Grad-CAM++ (Chattopadhay 2018), HiResCAM (Draelos & Carin 2020) and LayerCAM (Jiang 2021).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from pytorch_grad_cam.base_cam import BaseCAM
from pytorch_grad_cam.utils.model_targets import ClassifierOutputTarget
from torch import Tensor, nn

from medfusion.errors import ExplanationError
from medfusion.explain.contract import Attribution, Progress
from medfusion.explain.sight import shift_of
from medfusion.inference import class_logits
from medfusion.library import Model
from medfusion.preprocess import to_batch

GRIDS = {"cnn": "cnn_map", "tokens": "token_grid", "deep": "deep_map"}  # fields of the network's Features


@dataclass(frozen=True)
class CamSettings:
    grid: str = "cnn"  # what tokens and deep map are made from; "tokens" after the Transformer; or "deep", the last

    def __post_init__(self) -> None:
        if self.grid not in GRIDS:
            raise ExplanationError(f"There is no grid {self.grid!r}. Choose one of: {', '.join(GRIDS)}.")


@dataclass(frozen=True)
class DeepCamSettings(CamSettings):
    grid: str = "deep"  # the last convolutional map, as in the paper: gradients averaged over an earlier one mislead


class FromMap(nn.Module):
    """The network as seen from one of its maps, for one call.

    The package hooks found, which belongs to this object alone: the shared network carries no hook, so sessions do
    not meet. Gradients start at the map, so frozen networks can be explained, and a compiled one can make it.
    """

    def __init__(self, model: Model, grid: str) -> None:
        super().__init__()
        self.model = model
        self.network = model.network  # the package looks for its device
        self.grid = grid
        self.found = nn.Identity()

    def forward(self, batch: Tensor) -> Tensor:
        """(1, 3, h, w) to class logits (1, K)."""
        features = self.model.features(batch)
        start = self.found(getattr(features, GRIDS[self.grid]).requires_grad_())
        after = self.network.maps(start) if self.grid == "cnn" else features._replace(**{GRIDS[self.grid]: start})
        return class_logits(self.network.decide(after), self.model.card.task)


def attribute(
    kind: type[BaseCAM],
    model: Model,
    picture: np.ndarray,
    target_index: int,
    seed: int,
    settings: CamSettings,
    progress: Progress,
) -> Attribution:
    """The signed map before the papers' ReLU, which the package would stretch to 0..1 whatever the evidence.

    kind: GradCAM (eq. 1, 2), GradCAMPlusPlus (section 3.2), HiResCAM or LayerCAM (eq. 5 to 7) of the package.
    """
    progress(0.0)
    batch = to_batch(picture, model.card.input).to(model.device)
    seen = FromMap(model, settings.grid)
    target = ClassifierOutputTarget(target_index)
    cam = kind(seen, [seen.found])
    tape = cam.activations_and_grads
    try:
        with torch.enable_grad():
            outputs = tape(batch)
            target(outputs[0]).backward()
        activations, gradients = tape.activations[0].numpy(), tape.gradients[0].numpy()
        raw = cam.get_cam_image(batch, seen.found, [target], activations, gradients, eigen_smooth=False)[0]
    finally:
        tape.release()
    progress(1.0)
    return Attribution(raw.astype(np.float32), "bicubic", shift=shift_of(model))
