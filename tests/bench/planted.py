"""`python -m tests.bench.planted`: do the maps find what an answer is known to rest on?

A checkered disc is planted at a random place in half of the drawn chest X-rays, a plain disc as bright in all of them.
A network learns which have the checkered one, and each method is asked where it is; so with large discs, and with
another network with small ones. Takes some twenty minutes.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFilter, ImageFont

from medfusion import inference
from medfusion.explain import EXPLAINERS, explain
from medfusion.explain.record import overlay
from medfusion.explain.truth import against
from medfusion.library import Model
from medfusion.synthetic import chest_xray
from medfusion.types import InputSpec, Scan
from tests.bench.table import write_csv
from tests.core.toy_networks import model_of
from training import loop
from training.config import TrainConfig
from training.datasets import Pictures

SIDE_PX = 224
RADII_PX = (20, 12)
CHECK_PX = 4
CLASSES = ("plain", "checkered")
RESULTS = Path(__file__).parent / "results" / "planted.csv"


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser("python -m tests.bench.planted", description=__doc__)
    parser.add_argument("--scans", type=int, default=40, help="scans that are explained (default: 40)")
    parser.add_argument("--radii", type=int, nargs="+", default=RADII_PX, help=f"of discs in px, of {SIDE_PX}")
    parser.add_argument("--epochs", type=int, default=8, help="of training (default: 8)")
    parser.add_argument("--pictures", type=int, default=640, help="of training (default: 640)")
    parser.add_argument("--out", type=Path, default=RESULTS, help="the table to write")
    parser.add_argument("--figure", type=Path, help="a picture to write, of maps of one scan with a large disc")
    options = parser.parse_args(arguments)
    scores = []
    for radius in options.radii:
        model = trained(options.pictures, options.epochs, radius)
        scores += measure(model, options.scans, radius)
        if options.figure and radius == options.radii[0]:
            drawing(model, radius).save(options.figure, quality=80)
        write_csv(options.out, scores)
    return 0


def drawn(count: int, seed: int, radius_px: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Pictures (n, side, side, 3) uint8, labels (n,), and masks (n, side, side) of the checkered disc."""
    rng = np.random.default_rng(seed)
    bodies = [chest_xray(SIDE_PX, seed=int(body)) // 16 for body in rng.integers(0, 10_000, max(2, count // 16))]
    pictures, masks = np.empty((count, SIDE_PX, SIDE_PX, 3), np.uint8), np.zeros((count, SIDE_PX, SIDE_PX), bool)
    labels = np.arange(count) % 2
    for picture, mask, label in zip(pictures, masks, labels, strict=True):
        body = np.roll(bodies[rng.integers(len(bodies))], rng.integers(-12, 13, 2), (0, 1)).astype(np.int16)
        first, second = places(rng, radius_px)
        body[first] = np.clip(body[first] * 0.6 + 70, 0, 255)
        if label:
            rows, columns = np.indices(body.shape) // CHECK_PX
            body[second] = np.where((rows + columns)[second] % 2, 200, 40)
            mask[second] = True
        picture[:] = np.clip(body + rng.normal(0, 6, body.shape), 0, 255)[..., None]
    return pictures, labels.astype(np.int64), masks


def places(rng: np.random.Generator, radius_px: int) -> tuple[np.ndarray, np.ndarray]:
    """Two discs that do not touch, as masks."""
    while True:
        centres = rng.uniform(radius_px, SIDE_PX - radius_px, (2, 2))
        if np.linalg.norm(centres[0] - centres[1]) > 2.5 * radius_px:
            break
    rows, columns = np.indices((SIDE_PX, SIDE_PX))
    first, second = (np.hypot(rows - y, columns - x) <= radius_px for y, x in centres)
    return first, second


def trained(count: int, epochs: int, radius_px: int) -> Model:
    """A network that answers by the checkered disc alone."""
    config = TrainConfig(
        epochs=epochs, patience=epochs, frozen_stages=1, train_px=SIDE_PX, side_px=SIDE_PX, average_decay=0.98,
        augmentation="general", workers=1,
    )  # fmt: skip
    spec = InputSpec(SIDE_PX, SIDE_PX)
    train, val = (as_set(number, seed, spec, radius_px) for number, seed in ((count, 0), (96, 1)))
    network, parts = loop.started(config, CLASSES, "binary")
    with tempfile.TemporaryDirectory() as folder:
        network = loop.fit(network, train, val, "binary", config, Path(folder), trained=parts)
    made = model_of(network, CLASSES, "binary", SIDE_PX, SIDE_PX)
    return replace(made, card=replace(made.card, input=spec))


def as_set(count: int, seed: int, spec: InputSpec, radius_px: int) -> Pictures:
    pictures, labels, _ = drawn(count, seed, radius_px)
    return Pictures(pictures, np.arange(count), labels, spec, np.zeros(count, dtype=int))


def measure(model: Model, count: int, radius_px: int) -> list[dict[str, object]]:
    """One row for each method, LIME also on its package's superpixels: means over scans that are answered rightly."""
    pictures, labels, masks = drawn(2 * count, 2, radius_px)
    right = [i for i in np.flatnonzero(labels == 1) if inference.score(model, pictures[i])[0].argmax() == 1]
    sys.stdout.write(f"{len(right)} of {count} planted discs are recognised\n")
    rows = []
    variants: list[tuple[str, str, dict[str, object]]] = [(method, method, {}) for method in EXPLAINERS]
    variants.append(("lime (quickshift)", "lime", {"superpixels": None}))
    for name, method, settings in variants:
        found: list[dict[str, float]] = []
        for i in right:
            scan = Scan(frames=pictures[i][None], name="planted", sha256=str(i), file_format="drawn")
            heatmap = explain(model, scan, 1, method, settings=settings).heatmap
            inside = bool(masks[i].ravel()[heatmap.argmax()])  # not just near, as for the pointing game
            found.append(asdict(against(heatmap, masks[i])) | {"inside": inside})
        mean = {key: round(float(np.mean([one[key] for one in found])), 3) for key in found[0]}
        rows.append({"radius_px": radius_px, "method": name, "scans": len(right)} | mean)
        sys.stdout.write("  ".join(f"{key} {value}" for key, value in rows[-1].items()) + "\n")
        sys.stdout.flush()
    return rows


def drawing(model: Model, radius_px: int) -> Image.Image:
    """One scan and its maps, with the planted disc outlined, in two rows."""
    pictures, _, masks = drawn(2, 5, radius_px)
    scan = Scan(frames=pictures[1][None], name="planted", sha256="1", file_format="drawn")
    rim = ImageFilter.FIND_EDGES
    white = Image.fromarray(masks[1]).convert("L").filter(rim)
    panels = [("Drawn scan", Image.fromarray(pictures[1]))]
    for method, explainer in EXPLAINERS.items():
        panels.append((explainer.title, overlay(pictures[1], explain(model, scan, 1, method).heatmap)))
    columns, text_px, gap = -(-len(panels) // 2), 26, 8
    sheet = Image.new("RGB", (columns * (SIDE_PX + gap) - gap, 2 * (SIDE_PX + text_px)), "#14171c")
    for number, (title, panel) in enumerate(panels):
        panel.paste("white", mask=white)
        left, top = number % columns * (SIDE_PX + gap), number // columns * (SIDE_PX + text_px)
        sheet.paste(panel, (left, top + text_px))
        ImageDraw.Draw(sheet).text((left + 4, top + 4), title, "#e8eaed", ImageFont.load_default(15))
    return sheet


if __name__ == "__main__":
    raise SystemExit(main())
