"""Models for other programs: ONNX with preparation and calibration inside, and the folder as it is in a zip."""

from __future__ import annotations

import io
import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from medfusion import inference, library
from medfusion.errors import ModelDamaged, ModelNotFound
from medfusion.inference import class_logits, to_probabilities
from medfusion.library import Model
from medfusion.preprocess import standardise

TOLERANCE = 1e-3  # of a probability
PROBES = 4  # pictures of noise that both are asked about


@dataclass(frozen=True)
class Exported:
    """content: an ONNX model, `pictures` (B, h, w, 3) uint8 RGB of the card's size to `probabilities` (B, K)."""

    content: bytes
    difference: float  # the largest between a probability of this and of the original, on noise


class Answering(nn.Module):
    """Decoded pictures to calibrated probabilities, in one module."""

    def __init__(self, model: Model) -> None:
        super().__init__()
        self.network, self.card = model.network, model.card

    def forward(self, pictures: Tensor) -> Tensor:
        batch = standardise(pictures.permute(0, 3, 1, 2), self.card.input)
        scores = class_logits(self.network(batch), self.card.task)
        return to_probabilities(scores, self.card.task, self.card.temperature)


def to_onnx(model_id: str) -> Exported:
    """Export a model and ask both the same. Raises ModelDamaged when they do not answer alike."""
    import onnxruntime  # a second to import, for this only

    model = library.load(model_id, "cpu")
    spec, stored = model.card.input, io.BytesIO()
    rng = np.random.default_rng(0)
    probes = rng.integers(0, 256, (PROBES, spec.height_px, spec.width_px, 3), dtype=np.uint8)
    program = torch.onnx.export(
        Answering(model).eval(), (torch.from_numpy(probes[:2]),), input_names=["pictures"],
        output_names=["probabilities"], dynamic_shapes=({0: torch.export.Dim("batch")},), dynamo=True, verbose=False,
    )  # fmt: skip
    assert program is not None
    program.save(stored)  # type: ignore[arg-type]  # onnx.save takes files, too
    session = onnxruntime.InferenceSession(stored.getvalue(), providers=["CPUExecutionProvider"])
    answered = session.run(None, {"pictures": probes})[0]
    difference = float(np.abs(answered - inference.score(model, probes)).max())
    if difference > TOLERANCE:
        raise ModelDamaged(f"The export of {model_id} answers otherwise by {difference:.4f}. Use the original.")
    return Exported(stored.getvalue(), difference)


def folder_as_zip(model_id: str) -> bytes:
    """Weights, card and README of a model, to put into another installation. Raises ModelNotFound."""
    folder = library.find(model_id).resolve()
    if not (folder / library.WEIGHTS).is_file():
        raise ModelNotFound(f"The weights of {model_id} are missing. Install the model again.")
    with tempfile.TemporaryDirectory(prefix="medfusion-") as place:
        shutil.copytree(folder, Path(place) / "model" / model_id)
        return Path(shutil.make_archive(f"{place}/{model_id}", "zip", f"{place}/model")).read_bytes()
