"""Everything that pages may ask of this package. Each call is one step of upload → answer → evidence.

Calls that open files, models or records are for readers only; those that look at what the caller holds already are not
guarded again.
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from PIL import Image

from medfusion import apart, evaluate, evaluation_report, export, inference, library, report, router, samples, triage
from medfusion.access import READER, needs
from medfusion.apart import prepare
from medfusion.explain import ALIKE, EXPLAINERS, describe, make_ready, record, refusal
from medfusion.explain import explain as _explain
from medfusion.explain import faithfulness as _faithfulness
from medfusion.explain import shortcuts as _shortcuts
from medfusion.explain.agreement import Agreement, agreement, disagreement
from medfusion.explain.change import Change, change
from medfusion.explain.faithfulness import RANDOM_MAPS, SHARES, Faithfulness
from medfusion.explain.record import Tests
from medfusion.explain.shortcuts import Shortcuts
from medfusion.explain.stability import SEEDS, Stability, stability
from medfusion.explain.truth import Overlap, against
from medfusion.export import Exported
from medfusion.imaging import display, presets
from medfusion.imaging.geometry import edges, unit
from medfusion.imaging.marks import SIDES, mark
from medfusion.library import Model
from medfusion.pacs import archives
from medfusion.router import Router
from medfusion.types import EvaluationReport, Explanation, ModelCard, Prediction, Route, Sample, Scan

__all__ = [
    "ALIKE",
    "EXPLAINERS",
    "RANDOM_MAPS",
    "SEEDS",
    "SHARES",
    "SIDES",
    "Agreement",
    "Change",
    "Exported",
    "Faithfulness",
    "Model",
    "Overlap",
    "Router",
    "Shortcuts",
    "Stability",
    "Tests",
    "against",
    "agreement",
    "change",
    "describe",
    "disagreement",
    "display",
    "edges",
    "evaluate_labelled",
    "explain",
    "export_folder",
    "export_onnx",
    "faithfulness",
    "list_models",
    "list_samples",
    "load_model",
    "load_router",
    "mark",
    "model_problems",
    "overlay",
    "patient_of",
    "predict",
    "prepare",
    "presets",
    "read_mask",
    "read_sample",
    "read_scan",
    "refusal",
    "risk_along",
    "route",
    "save_explanations",
    "send_report",
    "shortcuts",
    "stability",
    "suggest_model",
    "unit",
]

Progress = Callable[[float], None]  # called with the part done, 0..1
reads = needs(READER)

patient_of = reads(apart.patient_of)
read_scan, read_mask = reads(apart.read_scan), reads(apart.read_mask)
faithfulness, shortcuts = reads(_faithfulness.faithfulness), reads(_shortcuts.shortcuts)


@reads
def list_models() -> list[ModelCard]:
    return library.list_cards()


@reads
def model_problems() -> list[str]:
    """One sentence for each installed model that cannot be used."""
    return library.problems()


@reads
def load_model(model_id: str) -> Model:
    """Ready for many answers and maps: compiled where that is faster."""
    model = library.load(model_id)
    make_ready(model)
    return model


@reads
def suggest_model(scan: Scan) -> str | None:
    """The id of the model that suits a scan by its headers or colours, None when none or several do.

    For installations without a router, which knows better.
    """
    picture = display(scan)
    cards = [card for card in list_models() if card.role == "diagnosis"]
    fitting = [card.id for card in cards if not inference.input_warnings(card, scan, picture)]
    return fitting[0] if len(fitting) == 1 else None


@reads
def load_router() -> Router | None:
    """What tells which model a scan is for; None where no foundation model is installed."""
    return router.load()


@reads
def route(known: Router, scan: Scan, frame: int = 0) -> Route:
    """The model that a scan is for, or the reason why none is."""
    return known.route(display(scan, frame))


@reads
def predict(model: Model, scan: Scan, frame: int = 0, route: Route | None = None) -> Prediction:
    """Answer one frame. route: where the scan belongs; another model than that answers with a warning."""
    return inference.predict(model, scan, frame, route)


@reads
def risk_along(model: Model, scan: Scan, progress: Progress | None = None) -> tuple[float, ...]:
    """The risk of each frame: the probability of anything but a harmless class."""
    return triage.risk_along(model, scan, progress)


@reads
def explain(
    model: Model,
    scan: Scan,
    target_index: int,
    method: str,
    frame: int = 0,
    seed: int = 0,
    settings: dict[str, object] | None = None,
    progress: Progress | None = None,
    partial_map: Callable[[Explanation], None] | None = None,
) -> Explanation:
    """The map of one method for one class, on the grid of the original frame.

    progress may raise Cancelled to stop. partial_map is given the map so far, now and then, by methods that have one.
    Raises ExplanationError on an unknown method or class.
    """
    return _explain(model, scan, target_index, method, frame, seed, settings, progress, partial_map)


def overlay(scan: Scan, explanation: Explanation) -> Image.Image:
    """A map over its frame, as it is saved."""
    return record.overlay(display(scan, explanation.frame), explanation.heatmap)


@reads
def save_explanations(
    model: Model, scan: Scan, made: list[Explanation], tests: Tests, prediction: Prediction, content: bytes
) -> bytes:
    """A zip of the maps as arrays and pictures, their tests, all that is needed to make them again, and a report.

    content: the file of the scan, for the references of the report's DICOM objects.
    """
    with tempfile.TemporaryDirectory(prefix="medfusion-") as folder:
        record.write(Path(folder) / "maps", model, scan, made, tests, prediction)
        report.write(Path(folder) / "maps", report.Report(content, scan, model, prediction, made, tests))
        return Path(shutil.make_archive(f"{folder}/maps", "zip", folder, "maps")).read_bytes()


@reads
def send_report(
    archive: str, case_id: int, model: Model, scan: Scan, made: list[Explanation], tests: Tests,
    prediction: Prediction, content: bytes,
) -> str:  # fmt: skip
    """Send SR and SC to the archive that the scan is of, for the patient it has there. Returns a sentence.

    case_id: of the worklist, or 0 for a file that was opened. Raises ArchiveError, ConfigError.
    """
    about = report.Report(content, scan, model, prediction, made, tests)
    return archives.send(archive, case_id, content, lambda header: report.for_archive(replace(about, source=header)))


@reads
def evaluate_labelled(model: Model, source: Path, split: str, progress: Progress | None = None) -> EvaluationReport:
    """Measure a model on a labelled zip. split: all, test or val. Raises DataError with what to mend."""
    part = evaluate.part_of(source, split)
    measured = evaluate.measure(model, part, progress)
    with tempfile.TemporaryDirectory(prefix="medfusion-") as folder:
        evaluation_report.write(Path(folder) / "report", measured, evaluate.origin_of(model, part, split))
        archive = shutil.make_archive(f"{folder}/archive", "zip", folder, "report")
        return EvaluationReport(measured.figures, Path(archive).read_bytes())


@reads
def export_onnx(model_id: str) -> Exported:
    """A model for other programs, checked against the original. Raises ModelDamaged when they differ."""
    return export.to_onnx(model_id)


@reads
def export_folder(model_id: str) -> bytes:
    """A model for another installation, as a zip."""
    return export.folder_as_zip(model_id)


@reads
def list_samples() -> list[Sample]:
    return samples.list_samples()


@reads
def read_sample(sample_id: str) -> Scan:
    return samples.read_sample(sample_id)
