"""`python -m tests.bench.ranking --data FOLDER`: does our LIME rank places as surely as the package's own call?

Ours is run as it is by default, the package with its 1000 samples, each with several seeds, and compared with 5000
independent samples on its own superpixels. Both answer through the fast backend; that draws and weights are the
package's is tested elsewhere. Scans are validation pictures of the labelled zips in FOLDER, as many of each, with the
model named like it; sets take turns, and the table is written after each scan, so that a run cut short tells of all.
"""

from __future__ import annotations

import argparse
import csv
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
from lime.wrappers.scikit_image import SegmentationAlgorithm
from scipy.stats import spearmanr

from medfusion import library
from medfusion.explain.contract import Attribution
from medfusion.explain.lime import QUICKSHIFT, LimeSettings, TensorLime, contiguous
from medfusion.inference import score
from medfusion.labelled import read_labelled, read_pictures
from medfusion.library import Model
from tests.bench.table import write_csv

REFERENCE, PACKAGE = 5000, 1000  # samples
RESULTS = Path(__file__).parent / "results" / "ranking.csv"
EVERY = 7  # pixels compared: neighbours say the same
PACKAGED = SegmentationAlgorithm("quickshift", random_seed=0, **QUICKSHIFT)


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser("python -m tests.bench.ranking", description=__doc__)
    parser.add_argument("--data", type=Path, required=True, help="folder of labelled zips")
    parser.add_argument("--scans", type=int, default=20)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument(
        "--keep-package", action="store_true", help="take the package's figures from the table: ours do not change them"
    )
    parser.add_argument("--out", type=Path, default=RESULTS, help="the table to write")
    options = parser.parse_args(arguments)
    rows = []
    known = read_csv(options.out) if options.keep_package else {}
    for number, model, picture in chosen(options.data, options.scans):
        kept = {name: value for name, value in known.get(number, {}).items() if name.startswith("package")}
        row = {"scan": number, "model": model.card.id}
        row |= compared(model, picture, "ours", options.seeds)
        rows.append(row | (kept or compared(model, picture, "package", options.seeds)))
        sys.stdout.write("  ".join(f"{key} {value}" for key, value in rows[-1].items()) + "\n")
        sys.stdout.flush()
        write_csv(options.out, sorted(rows, key=lambda one: int(str(one["scan"]))))
    for key in ("ours", "ours_samples", "package"):
        sys.stdout.write(f"mean of {key}: {np.mean([float(str(row[key])) for row in rows]):.3f}\n")
    return 0


def read_csv(path: Path) -> dict[int, dict[str, str]]:
    with path.open(encoding="utf-8", newline="") as file:
        return {int(row["scan"]): row for row in csv.DictReader(file)}


def chosen(folder: Path, count: int) -> Iterator[tuple[int, Model, np.ndarray]]:
    """Validation pictures with their number, as many of each set, as the models see them; sets take turns."""
    archives = sorted(folder.glob("*.zip"))
    found = []
    for number, archive in enumerate(archives):
        model = library.load(archive.stem.replace("_", "-"), "cpu")
        part = read_labelled(archive).subset("val")
        share = count // len(archives) + (number < count % len(archives))
        rows = np.random.default_rng(0).choice(len(part.cases), share, replace=False)
        few = replace(part, cases=tuple(part.cases[row] for row in rows))
        found += [(turn, model, picture) for turn, picture in enumerate(read_pictures(few, model.card.input))]
    numbered = [(number, *one) for number, one in enumerate(found)]
    for number, _, model, picture in sorted(numbered, key=lambda one: one[:2][::-1]):
        yield number, model, picture


def compared(model: Model, picture: np.ndarray, side: str, seeds: int) -> dict[str, object]:
    """Superpixels, mean samples, and mean rank correlation with the reference, of one side: ours or the package's."""
    target = int(score(model, picture)[0].argmax())
    settings = LimeSettings() if side == "ours" else LimeSettings(PACKAGE, balanced=False, settle=1)
    segmentation = settings.segmentation() if side == "ours" else PACKAGED
    segments = contiguous(segmentation(picture))

    def found(asked: LimeSettings, seed: int) -> Attribution:
        explainer = TensorLime(model, target, seed, asked, lambda *_: None)
        explainer.explain_instance(
            picture, explainer.odds, (target,), top_labels=None, num_samples=asked.samples, batch_size=32,
            segmentation_fn=lambda _: segments, random_seed=seed,
        )  # fmt: skip
        return explainer.found

    reference = found(LimeSettings(REFERENCE, balanced=False, settle=1), seed=1000)
    runs = [found(settings, seed) for seed in range(seeds)]
    ranks = [spearmanr(run.raw.ravel()[::EVERY], reference.raw.ravel()[::EVERY]).statistic for run in runs]
    return {
        f"{side}_superpixels": int(segments.max()) + 1,
        f"{side}_samples": round(float(np.mean([run.samples for run in runs]))),
        side: round(float(np.mean(ranks)), 4),
    }


if __name__ == "__main__":
    raise SystemExit(main())
