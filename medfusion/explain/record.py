"""Explanations as files: arrays, pictures, and all that is needed to make them again, without a name or a patient."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from importlib import metadata
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

import medfusion
from medfusion.errors import ConfigError, ExplanationError
from medfusion.explain import describe, explain
from medfusion.explain.agreement import agreement
from medfusion.explain.faithfulness import Faithfulness
from medfusion.explain.shortcuts import Shortcuts
from medfusion.explain.stability import Stability
from medfusion.explain.truth import Overlap
from medfusion.explain.words import degenerate
from medfusion.imaging import display
from medfusion.imaging.marks import mark
from medfusion.library import Model
from medfusion.preprocess import squash
from medfusion.types import Explanation, Prediction, Scan

ACCOUNT = "explanation.json"
SEEN = "seen.png"  # by the model: the frame at its size, from which the maps can be made again
PACKAGES = ("torch", "numpy", "lime", "grad-cam", "captum", "scikit-image", "openvino")
PICTURE_SIDE_PX = 1280
OPACITY = 0.6
CLEAR_BELOW = 0.35  # of the strongest evidence: weaker evidence fades out, as on the page
ARRAYS = ("heatmap", "signed", "raw")
BETTER = {
    "larger": [
        "rank_correlation", "top_overlap", "jaccard", "insertion", "road", "better_than", "road_better_than", "energy",
        "iou", "fit",
    ],
    "smaller": ["deletion", "unstable_share", "mean_deviation"],
}  # fmt: skip


@dataclass(frozen=True, eq=False)
class Tests:
    """What was found about the maps, by method. A method that is missing was not tested."""

    faithfulness: Mapping[str, Faithfulness | None] = field(default_factory=dict)
    stability: Mapping[str, Stability] = field(default_factory=dict)
    shortcuts: Mapping[str, Shortcuts] = field(default_factory=dict)
    overlaps: Mapping[str, Overlap] = field(default_factory=dict)  # with a reader's own mask


def write(
    folder: Path, model: Model, scan: Scan, made: Sequence[Explanation], tests: Tests, prediction: Prediction
) -> None:
    """METHOD.npz and METHOD.png for each explanation, scan.png, seen.png and explanation.json. Raises ConfigError."""
    write_files(folder, model, scan, display(scan, made[0].frame), made, tests, prediction)


def write_files(
    folder: Path, model: Model, scan: Scan, picture: np.ndarray, made: Sequence[Explanation], tests: Tests,
    prediction: Prediction | None = None,
) -> None:  # fmt: skip
    """picture: the frame as displayed, (H, W) or (H, W, 3) uint8."""
    seen = squash(picture, model.card.input)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        Image.fromarray(seen).save(folder / SEEN)
        mark(shown(picture), scan).save(folder / "scan.png")
        for found in made:
            arrays = {name: getattr(found, name) for name in ARRAYS}
            if found.method in tests.stability:
                over = tests.stability[found.method]
                arrays |= {"mean_over_seeds": over.mean, "deviation_over_seeds": over.deviation}
            np.savez_compressed(folder / f"{found.method}.npz", **arrays)
            mark(overlay(picture, found.heatmap), scan).save(folder / f"{found.method}.png")
        told = account(model, made, tests) | {
            "seen_sha256": digest(seen),
            "prediction": prediction and answer(prediction),
        }
        text = json.dumps(told, indent=2, ensure_ascii=False) + "\n"
        (folder / ACCOUNT).write_text(text, encoding="utf-8")
    except OSError as error:
        raise ConfigError(f"The maps cannot be written ({error.strerror}). Choose another folder.") from error


def account(model: Model, made: Sequence[Explanation], tests: Tests) -> dict[str, object]:
    """Everything that the maps depend on, and what they say."""
    first = made[0]
    return {
        "target": first.target_name,
        "scan_sha256": first.scan_sha256,
        "frame": first.frame + 1,
        "height_px": first.heatmap.shape[0],
        "width_px": first.heatmap.shape[1],
        "model": {"id": first.model_id, "version": first.model_version, "weights_sha256": model.card.weights_sha256},
        "device": model.device.type,
        "threads": torch.get_num_threads(),
        "methods": {found.method: described(found, tests) for found in made},
        "agreement": {
            f"{one.method},{other.method}": rounded(asdict(agreement(one, other)))
            for one, other in combinations(made, 2)
        },
        "shortcuts": next((rounded(asdict(found)) for found in tests.shortcuts.values()), None),
        "better": BETTER,
        "versions": {"medfusion": medfusion.__version__} | {name: metadata.version(name) for name in PACKAGES},
    }


def answer(prediction: Prediction) -> dict[str, object]:
    """What the maps explain, and reasons to distrust it."""
    return {
        "probabilities": dict(zip(prediction.classes, rounded(prediction.probabilities), strict=True)),
        "answers": prediction.answers,
        "plausible": prediction.plausible,
        "warnings": prediction.warnings,
        "override": prediction.override,
    }


def described(found: Explanation, tests: Tests) -> dict[str, object]:
    """One method: how its map was made, what it holds and how far it can be believed."""
    faithful, stable = tests.faithfulness.get(found.method), tests.stability.get(found.method)
    overlap = tests.overlaps.get(found.method)
    return {
        "settings": dict(found.settings),
        "seed": found.seed,
        "elapsed_s": round(found.elapsed_s, 4),
        "fit": found.fit,
        "samples": found.samples,
        "has_positive_evidence": found.has_positive_evidence,
        "degenerate": degenerate(found),
        "in_words": describe(found),
        "stability": stable_figures(found, stable),
        "faithfulness": faithful
        and rounded(asdict(faithful)) | {"is_better_than_random": faithful.is_better_than_random},
        "mask": overlap and rounded(asdict(overlap)),
        "sha256": {name: digest(getattr(found, name)) for name in ARRAYS},
    }


def stable_figures(found: Explanation, over: Stability | None) -> dict[str, object] | None:
    """None where it was not tested; a method that draws no random numbers has the same map for every seed."""
    if found.seed is None:
        return {"seeds": [], "jaccard": 1.0, "unstable_share": 0.0, "mean_deviation": 0.0}
    if over is None:
        return None
    figures = {"jaccard": over.jaccard, "unstable_share": over.unstable_share}
    return {"seeds": list(over.seeds)} | rounded(figures | {"mean_deviation": float(over.deviation.mean())})


@dataclass(frozen=True)
class Account:
    """What an explanation.json asks for when its maps are made again."""

    path: Path
    target: str
    model_id: str
    weights_sha256: str
    scan_sha256: str
    seen_sha256: str | None
    frame: int
    size_px: tuple[int, int]  # height and width of the frame
    threads: int
    calls: Mapping[str, tuple[Mapping[str, object], int, str]]  # by method: settings, seed, digest of the raw map


def read_account(path: Path) -> Account:
    """Raises ExplanationError where the file cannot be read or is no such account."""
    try:
        return as_account(json.loads(path.read_text(encoding="utf-8")), path)
    except OSError as error:
        raise ExplanationError(f"{path.name} cannot be read ({error.strerror}). Check the path.") from error
    except ValueError as error:
        raise ExplanationError(f"{path.name} is no account of an explanation. Name another.") from error


def as_account(told: Any, path: Path) -> Account:
    """told: what the file at a path holds, as `account` made it. Raises ExplanationError where it is no such thing."""
    try:
        return Account(
            path=path,
            target=str(told["target"]),
            model_id=str(told["model"]["id"]),
            weights_sha256=told["model"]["weights_sha256"],
            scan_sha256=told["scan_sha256"],
            seen_sha256=told.get("seen_sha256"),
            frame=int(told["frame"]) - 1,
            size_px=(int(told["height_px"]), int(told["width_px"])),
            threads=int(told["threads"]),
            calls={
                name: (one["settings"], one["seed"] or 0, one["sha256"]["raw"]) for name, one in told["methods"].items()
            },
        )
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ExplanationError(f"{path.name} is no account of an explanation. Name another.") from error


def replay(account: Account, model: Model, scan: Scan | None) -> dict[str, tuple[Explanation, bool]]:
    """Make the maps of an account again: for each method the new one, and whether it has the same bits.

    scan: None to start from what the model saw of it, which lies beside the account. Raises ExplanationError where the
    account tells of another scan or model.
    """
    name = account.path.name
    if account.target not in model.card.classes:
        raise ExplanationError(f"{name} is no account of an explanation of this model. Name another.")
    if model.card.weights_sha256 != account.weights_sha256:
        raise ExplanationError(f"{name} tells of another model. Name the one that it was made with.")
    if scan and scan.sha256 != account.scan_sha256:
        raise ExplanationError(f"{name} tells of another scan. Name the one that it was made with.")
    picture = None if scan else read_seen(account)
    subject = scan or unseen(account)
    target = model.card.classes.index(account.target)
    before = torch.get_num_threads()
    torch.set_num_threads(max(1, account.threads))  # sums of another number of threads differ in their last bits
    try:
        made = {
            name: explain(model, subject, target, name, account.frame, seed, settings, picture=picture)
            for name, (settings, seed, _) in account.calls.items()
        }
    finally:
        torch.set_num_threads(before)
    return {name: (one, digest(one.raw) == account.calls[name][2]) for name, one in made.items()}


def read_seen(account: Account) -> np.ndarray:
    """What the model saw, (h, w, 3) uint8. Raises ExplanationError where it is missing or was changed."""
    path = account.path.with_name(SEEN)
    try:
        seen = np.asarray(Image.open(path))
    except OSError as error:
        raise ExplanationError(f"{SEEN} is not beside {account.path.name}. Name the scan as well.") from error
    if digest(seen) != account.seen_sha256:
        raise ExplanationError(f"{SEEN} is not the one that {account.path.name} tells of. Name the scan as well.")
    return seen


def unseen(account: Account) -> Scan:
    """In place of a scan that is not at hand: its size and identity, without its pixels."""
    frames = np.broadcast_to(np.uint8(0), (account.frame + 1, *account.size_px))
    return Scan(frames=frames, name="", sha256=account.scan_sha256, file_format="replayed")


def overlay(picture: np.ndarray, heatmap: np.ndarray) -> Image.Image:
    """A map (H, W) in 0..1 over its picture, in cividis; clear where there is no evidence."""
    from matplotlib import colormaps  # a second to import, for pictures only

    below = shown(picture).convert("RGB")
    values = np.asarray(Image.fromarray(heatmap).resize(below.size, Image.Resampling.BILINEAR))
    colours = Image.fromarray((255 * colormaps["cividis"](values)[..., :3]).round().astype(np.uint8))
    alpha = Image.fromarray((255 * OPACITY * np.clip(values / CLEAR_BELOW, 0, 1)).round().astype(np.uint8))
    return Image.composite(colours, below, alpha)


def shown(picture: np.ndarray) -> Image.Image:
    """(H, W) or (H, W, 3) uint8, at most PICTURE_SIDE_PX on the longer side."""
    image = Image.fromarray(picture)
    image.thumbnail((PICTURE_SIDE_PX, PICTURE_SIDE_PX))
    return image


def digest(array: np.ndarray) -> str:
    return hashlib.sha256(np.ascontiguousarray(array).tobytes()).hexdigest()


def rounded(value: Any) -> Any:
    """Numbers to four places, NaN as None, at any depth."""
    if isinstance(value, float):
        return None if math.isnan(value) else round(value, 4)
    if isinstance(value, Mapping):
        return {key: rounded(one) for key, one in value.items()}
    return [rounded(one) for one in value] if isinstance(value, list | tuple) else value
