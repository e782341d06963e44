"""Everything that pages may ask of this package. Each call is one step of upload → answer → evidence."""

from __future__ import annotations

from collections.abc import Callable

from medfusion import inference, library, samples
from medfusion.explain import EXPLAINERS, describe
from medfusion.explain import explain as _explain
from medfusion.imaging import display, presets, read_scan
from medfusion.library import Model
from medfusion.types import Explanation, ModelCard, Prediction, Sample, Scan

__all__ = [
    "EXPLAINERS",
    "Model",
    "describe",
    "display",
    "explain",
    "list_models",
    "list_samples",
    "load_model",
    "model_problems",
    "predict",
    "presets",
    "read_sample",
    "read_scan",
    "suggest_model",
]

Progress = Callable[[float], None]  # called with the part done, 0..1


def list_models() -> list[ModelCard]:
    return library.list_cards()


def model_problems() -> list[str]:
    """One sentence for each installed model that cannot be used."""
    return library.problems()


def load_model(model_id: str) -> Model:
    """Ready for many answers: compiled where that is faster."""
    model = library.load(model_id)
    model.backend.get()
    return model


def suggest_model(scan: Scan) -> str | None:
    """The id of the model that suits a scan by its headers or colours, None when none or several do."""
    picture = display(scan)
    fitting = [card.id for card in list_models() if not inference.input_warnings(card, scan, picture)]
    return fitting[0] if len(fitting) == 1 else None


def predict(model: Model, scan: Scan, frame: int = 0) -> Prediction:
    return inference.predict(model, scan, frame)


def explain(
    model: Model,
    scan: Scan,
    target_index: int,
    method: str,
    frame: int = 0,
    seed: int = 0,
    settings: dict[str, object] | None = None,
    progress: Progress | None = None,
) -> Explanation:
    """The map of one method for one class, on the grid of the original frame.

    progress may raise Cancelled to stop. Raises ExplanationError on an unknown method or class.
    """
    return _explain(model, scan, target_index, method, frame=frame, seed=seed, settings=settings, progress=progress)


def list_samples() -> list[Sample]:
    return samples.list_samples()


def read_sample(sample_id: str) -> Scan:
    return samples.read_sample(sample_id)
