"""Grad-CAM (Selvaraju 2017) through the grad-cam package, on the CNN map that the tokens are cut from."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from pytorch_grad_cam import GradCAM
from pytorch_grad_cam.utils.model_targets import ClassifierOutputTarget
from torch import Tensor, nn

from medfusion.explain.contract import Attribution, Progress
from medfusion.inference import class_logits
from medfusion.library import Model
from medfusion.preprocess import to_batch


@dataclass(frozen=True)
class GradCamSettings:
    """Nothing to set."""


class FromCnnMap(nn.Module):
    """The rest of the network after the CNN, for one call.

    The package hooks cnn_map, which belongs to this object alone: the shared network carries no hook, so sessions do
    not meet. Gradients start at the map, so frozen networks can be explained.
    """

    def __init__(self, model: Model) -> None:
        super().__init__()
        self.network = model.network
        self.task = model.card.task
        self.cnn_map = nn.Identity()

    def forward(self, batch: Tensor) -> Tensor:
        with torch.no_grad():
            cnn_map = self.network.extract(batch)
        logits, _ = self.network.classify(self.cnn_map(cnn_map.requires_grad_()))
        return class_logits(logits, self.task)


def attribute(
    model: Model, picture: np.ndarray, target_index: int, seed: int, settings: GradCamSettings, progress: Progress
) -> Attribution:
    """The signed map before the paper's ReLU: channel weights are gradients averaged over the map (eq. 1, 2)."""
    progress(0.0)
    batch = to_batch(picture, model.card.input).to(model.device)
    rest = FromCnnMap(model)
    targets = [ClassifierOutputTarget(target_index)]
    cam = GradCAM(rest, [rest.cnn_map])
    try:
        with torch.enable_grad():
            cam(batch, targets)  # its own result is stretched to 0..1, whatever the evidence: only the tape is used
        tape = cam.activations_and_grads
        activations, gradients = tape.activations[0].numpy(), tape.gradients[0].numpy()
        raw = cam.get_cam_image(batch, rest.cnn_map, targets, activations, gradients)[0]
    finally:
        cam.activations_and_grads.release()
    progress(1.0)
    return Attribution(raw.astype(np.float32), "bilinear")
