"""A new model against the one it started from, on held-out pictures: who is right, how surely, and what maps show.

Called once a run, when nothing is chosen any more. Writes result.json, the evaluation report and maps beside it.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from medfusion import evaluation_report, metrics
from medfusion.evaluate import Measurement, origin_of
from medfusion.evaluation_report import worst_errors
from medfusion.explain import explain
from medfusion.explain.record import overlay
from medfusion.explain.sanity import likeness
from medfusion.labelled import read_pictures
from medfusion.library import Model
from medfusion.types import Explanation, Scan

RESULT, REPORT, MAPS = "result.json", "report", "maps"
SHOWN = 6  # errors whose maps are shown
METHOD = "gradcam"
SURE = 0.05
BETTER, WORSE, ALIKE, ALONE = "better", "worse", "alike", "alone"


def write(folder: Path, child: Model, parent: Model | None, own: Measurement, others: Measurement | None) -> None:
    """Compare both on the same cases, and keep it. parent and others: None where there is nobody to compare with."""
    labels, draws = own.labels, own.draws
    result: dict[str, object] = {"n": len(labels), "classes": list(own.card.classes), "child": own.figures}
    result["commonest"] = commonest(own)
    result["verdict"] = ALONE
    if parent and others:
        before, after = aligned(others, own.card.classes), (own.probabilities, own.answers)
        gain = metrics.difference(lambda p, y, a: metrics.auroc(p, y), before, after, labels, draws)
        more = metrics.difference(lambda p, y, a: float((a == y).mean()), before, after, labels, draws)
        result |= {
            "parent_id": parent.card.id,
            "parent_version": parent.card.version,
            "parent": others.figures,
            "auroc_gain": asdict(gain),
            "accuracy_gain": asdict(more),
            "p_accuracy": metrics.mcnemar(others.right, own.right),
            "verdict": verdict(gain, more),
        }
        if own.card.task == "binary":
            result["p_auroc"] = metrics.delong(before[0][:, 1], own.probabilities[:, 1], labels == 1)
    result["maps"] = maps(folder / MAPS, child, parent, own)
    evaluation_report.write(folder / REPORT, own, origin_of(child, own.data, "test"))
    (folder / RESULT).write_text(json.dumps(result, indent=1, ensure_ascii=False), encoding="utf-8")


def aligned(measured: Measurement, classes: tuple[str, ...]) -> tuple[np.ndarray, np.ndarray]:
    """Probabilities and answers of a model that may list the same classes in another order."""
    order = [measured.card.classes.index(name) for name in classes]
    several = measured.answers.ndim == 2
    return measured.probabilities[:, order], measured.answers[:, order] if several else np.argsort(order)[
        measured.answers
    ]


def verdict(auroc: metrics.Estimate, accuracy: metrics.Estimate) -> str:
    """In a word. Better or worse only where an interval excludes no difference; where both do, ranking decides."""
    for gain in (auroc, accuracy):
        if gain.low > 0:
            return BETTER
        if gain.high < 0:
            return WORSE
    return ALIKE


def commonest(measured: Measurement) -> dict[str, object]:
    """What always answering the commonest class of these cases would reach; of several labels, what most have."""
    if measured.labels.ndim == 2:
        most = measured.labels.mean(axis=0) > 0.5
        label = " + ".join(name for name, said in zip(measured.card.classes, most, strict=True) if said) or "none"
        return {"label": label, "accuracy": float((measured.labels == most).mean())}
    counts = np.bincount(measured.labels, minlength=len(measured.card.classes))
    return {"label": measured.card.classes[int(counts.argmax())], "accuracy": float(counts.max() / counts.sum())}


def maps(folder: Path, child: Model, parent: Model | None, own: Measurement) -> list[dict[str, object]]:
    """The worst errors as pictures with the Grad-CAM of both models for the answer given, and how alike they are."""
    worst = worst_errors(own)[:SHOWN].tolist()
    if not worst:
        return []
    folder.mkdir(parents=True, exist_ok=True)
    part = replace(own.data, cases=tuple(own.data.cases[index] for index in worst))
    found = []
    for number, (index, picture) in enumerate(zip(worst, read_pictures(part, own.card.input), strict=True)):
        target = own.card.classes[blamed(own, index)]
        said: dict[str, Any] = {
            "label": own.data.cases[index].label,
            "answer": own.answer(index),
            "given": float(own.given(own.labels)[index].min()),
            "target": target,
        }
        Image.fromarray(picture).save(folder / f"{number}-scan.webp")
        made = [
            draw(model, picture, model.card.classes.index(target), folder / f"{number}-{who}.webp")
            for who, model in pairs(child, parent)
        ]
        if len(made) == 2:
            said["likeness"] = likeness(*made)
        found.append(said)
    return found


def blamed(own: Measurement, index: int) -> int:
    """The class whose map explains an error: the answer, or of several the decision that is furthest from the truth."""
    return int(own.given(own.labels)[index].argmin()) if own.labels.ndim == 2 else int(own.answers[index])


def pairs(child: Model, parent: Model | None) -> Sequence[tuple[str, Model]]:
    return [("child", child), *([("parent", parent)] if parent else [])]


def draw(model: Model, picture: np.ndarray, target_index: int, path: Path) -> Explanation:
    """Save the map of one decoded picture over it. Returns the explanation."""
    unjudged = replace(model, card=replace(model.card, metrics={}))  # a refused method is shown here as it is
    made = explain(unjudged, Scan(picture[None], "", path.stem, "decoded"), target_index, METHOD)
    overlay(picture, made.heatmap).save(path)
    return made
