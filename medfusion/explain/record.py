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
from medfusion.types import Explanation, Scan

ACCOUNT = "explanation.json"
PACKAGES = ("torch", "numpy", "lime", "grad-cam", "captum", "scikit-image", "openvino")
PICTURE_SIDE_PX = 1280
OPACITY = 0.6
CLEAR_BELOW = 0.35  # of the strongest evidence: weaker evidence fades out, as on the page
ARRAYS = ("heatmap", "signed", "raw")


@dataclass(frozen=True, eq=False)
class Tests:
    """What was found about the maps, by method. A method that is missing was not tested."""

    faithfulness: Mapping[str, Faithfulness | None] = field(default_factory=dict)
    stability: Mapping[str, Stability] = field(default_factory=dict)
    shortcuts: Mapping[str, Shortcuts] = field(default_factory=dict)
    overlaps: Mapping[str, Overlap] = field(default_factory=dict)  # with a reader's own mask


def write(folder: Path, model: Model, scan: Scan, made: Sequence[Explanation], tests: Tests) -> None:
    """METHOD.npz and METHOD.png for each explanation, scan.png, and explanation.json. Raises ConfigError."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        picture = display(scan, made[0].frame)
        mark(shown(picture), scan).save(folder / "scan.png")
        for found in made:
            arrays = {name: getattr(found, name) for name in ARRAYS}
            if found.method in tests.stability:
                over = tests.stability[found.method]
                arrays |= {"mean_over_seeds": over.mean, "deviation_over_seeds": over.deviation}
            np.savez_compressed(folder / f"{found.method}.npz", **arrays)
            mark(overlay(picture, found.heatmap), scan).save(folder / f"{found.method}.png")
        text = json.dumps(account(model, made, tests), indent=2, ensure_ascii=False) + "\n"
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
        "model": {"id": first.model_id, "version": first.model_version, "weights_sha256": model.card.weights_sha256},
        "device": model.device.type,
        "threads": torch.get_num_threads(),
        "methods": {found.method: described(found, tests) for found in made},
        "agreement": {
            f"{one.method},{other.method}": rounded(asdict(agreement(one, other)))
            for one, other in combinations(made, 2)
        },
        "shortcuts": next((rounded(asdict(found)) for found in tests.shortcuts.values()), None),
        "versions": {"medfusion": medfusion.__version__} | {name: metadata.version(name) for name in PACKAGES},
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


def replay(path: Path, model: Model, scan: Scan) -> dict[str, tuple[Explanation, bool]]:
    """Make the maps of an explanation.json again: for each method the new one, and whether it has the same bits.

    Raises ExplanationError where the file is no such account, or tells of another scan or model.
    """
    try:
        told: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        methods, target = told["methods"], model.card.classes.index(told["target"])
        wanted = (told["scan_sha256"], told["model"]["weights_sha256"])
        frame, threads = int(told["frame"]) - 1, int(told["threads"])
        calls = {name: (one["settings"], one["seed"] or 0, one["sha256"]["raw"]) for name, one in methods.items()}
    except OSError as error:
        raise ExplanationError(f"{path.name} cannot be read ({error.strerror}). Check the path.") from error
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ExplanationError(f"{path.name} is no account of an explanation of this model. Name another.") from error
    for name, ours, theirs in zip(("scan", "model"), (scan.sha256, model.card.weights_sha256), wanted, strict=True):
        if ours != theirs:
            raise ExplanationError(f"{path.name} tells of another {name}. Name the one that it was made with.")
    before = torch.get_num_threads()
    torch.set_num_threads(max(1, threads))  # sums of another number of threads differ in their last bits
    try:
        made = {
            name: explain(model, scan, target, name, frame, seed, settings)
            for name, (settings, seed, _) in calls.items()
        }
    finally:
        torch.set_num_threads(before)
    return {name: (one, digest(one.raw) == calls[name][2]) for name, one in made.items()}


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
