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
LOOKED_AT, CHANGED = 12, 3  # cases whose maps are compared, and those of them that are shown
METHOD = "gradcam"
SURE = 0.05
BETTER, WORSE, ALIKE, ALONE = "better", "worse", "alike", "alone"


def write(
    folder: Path,
    child: Model,
    parent: Model | None,
    own: Measurement,
    others: Measurement | None,
    split: str = "test",
) -> None:
    """Compare both on the same cases, and keep it. parent and others: None where there is nobody to compare with.

    split: whose cases these are; of val the new model was chosen by them.
    """
    labels, draws = own.labels, own.draws
    result: dict[str, object] = {"n": len(labels), "classes": list(own.card.classes), "child": own.figures}
    result |= {"split": split, "commonest": commonest(own), "verdict": ALONE}
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
    if parent:
        result["changed"] = changed(folder / MAPS, child, parent, own)
    evaluation_report.write(folder / REPORT, own, origin_of(child, own.data, split))
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
    """What always answering the commonest class of these cases would reach, and how much more the model does.

    Of several labels the commonest are those that most cases have. gain: of accuracy, paired; p: McNemar's.
    """
    labels = measured.labels
    if labels.ndim == 2:
        most = labels.mean(axis=0) > 0.5
        always = np.broadcast_to(most, labels.shape).astype(labels.dtype)
        label = " + ".join(name for name, said in zip(measured.card.classes, most, strict=True) if said) or "none"
        right = (always == labels).all(axis=1)
    else:
        first = int(np.bincount(labels, minlength=len(measured.card.classes)).argmax())
        always = np.full_like(labels, first)
        label, right = measured.card.classes[first], always == labels
    guess, model = (measured.probabilities, always), (measured.probabilities, measured.answers)
    gain = metrics.difference(lambda p, y, a: float((a == y).mean()), guess, model, labels, measured.draws)
    accuracy = float((always == labels).mean())
    return {"label": label, "accuracy": accuracy, "gain": asdict(gain), "p": metrics.mcnemar(right, measured.right)}


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
        made = [draw(model, picture, target, folder / f"{number}-{who}.webp") for who, model in pairs(child, parent)]
        if len(made) == 2:
            said["likeness"] = likeness(*made)
        found.append(said)
    return found


def changed(folder: Path, child: Model, parent: Model, own: Measurement) -> dict[str, object]:
    """How alike the Grad-CAM of both models is on cases spread over all, and the cases where it changed most."""
    rows = np.linspace(0, len(own.labels) - 1, min(LOOKED_AT, len(own.labels))).astype(int).tolist()
    part = replace(own.data, cases=tuple(own.data.cases[row] for row in rows))
    folder.mkdir(parents=True, exist_ok=True)
    found: list[tuple[float, int, np.ndarray, dict[str, Explanation], str]] = []
    for row, picture in zip(rows, read_pictures(part, own.card.input), strict=True):
        target = own.card.classes[truth(own, row)]
        made = {who: mapped(model, picture, target) for who, model in pairs(child, parent)}
        found.append((likeness(made["child"], made["parent"]), row, picture, made, target))
    found.sort(key=lambda one: one[0])
    shown = []
    for number, (alike, row, picture, made, target) in enumerate(found[:CHANGED]):
        Image.fromarray(picture).save(folder / f"changed-{number}-scan.webp")
        for who, explanation in made.items():
            overlay(picture, explanation.heatmap).save(folder / f"changed-{number}-{who}.webp")
        said = {"label": own.data.cases[row].label, "answer": own.answer(row), "target": target, "likeness": alike}
        shown.append(said)
    return {"n": len(found), "likeness": float(np.mean([one[0] for one in found])), "cases": shown}


def truth(own: Measurement, row: int) -> int:
    """The class of a case; of several labels its first, or the first of all where it has none."""
    return int(own.labels[row].argmax()) if own.labels.ndim == 2 else int(own.labels[row])


def blamed(own: Measurement, index: int) -> int:
    """The class whose map explains an error: the answer, or of several the decision that is furthest from the truth."""
    return int(own.given(own.labels)[index].argmin()) if own.labels.ndim == 2 else int(own.answers[index])


def pairs(child: Model, parent: Model | None) -> Sequence[tuple[str, Model]]:
    return [("child", child), *([("parent", parent)] if parent else [])]


def draw(model: Model, picture: np.ndarray, target: str, path: Path) -> Explanation:
    """Save the map of one decoded picture, for a class, over it. Returns the explanation."""
    made = mapped(model, picture, target)
    overlay(picture, made.heatmap).save(path)
    return made


def mapped(model: Model, picture: np.ndarray, target: str) -> Explanation:
    unjudged = replace(model, card=replace(model.card, metrics={}))  # a refused method is shown here as it is
    return explain(unjudged, Scan(picture[None], "", "", "decoded"), model.card.classes.index(target), METHOD)
