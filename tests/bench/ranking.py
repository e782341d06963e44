"""`python -m tests.bench.ranking --data FOLDER`: does our LIME rank places as surely as the package's own call?

Ours is run as it is by default, the package with its 1000 samples, each with several seeds, and compared with 5000
independent samples on its own superpixels: ours are SLIC, the package's quickshift. Both answer through the fast
backend; that draws and weights are the package's is tested elsewhere. Scans are validation pictures of the labelled
zips in FOLDER, as many of each, with the model named like it.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
from lime.wrappers.scikit_image import SegmentationAlgorithm
from scipy.stats import spearmanr

from medfusion import library
from medfusion.explain.lime import LimeSettings, TensorLime, contiguous
from medfusion.inference import score
from medfusion.labelled import read_labelled, read_pictures
from medfusion.library import Model
from tests.bench.table import write_csv

REFERENCE, PACKAGE = 5000, 1000  # samples
RESULTS = Path(__file__).parent / "results" / "ranking.csv"
EVERY = 7  # pixels compared: neighbours say the same
QUICKSHIFT = {"kernel_size": 4, "max_dist": 200, "ratio": 0.2, "random_seed": 0}  # lime_image.py, explain_instance


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser("python -m tests.bench.ranking", description=__doc__)
    parser.add_argument("--data", type=Path, required=True, help="folder of labelled zips")
    parser.add_argument("--scans", type=int, default=20)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--out", type=Path, default=RESULTS, help="the table to write")
    options = parser.parse_args(arguments)
    rows = []
    for model, picture in chosen(options.data, options.scans):
        rows.append({"model": model.card.id} | compared(model, picture, options.seeds))
        sys.stdout.write("  ".join(f"{key} {value}" for key, value in rows[-1].items()) + "\n")
        sys.stdout.flush()
    write_csv(options.out, rows)
    for key in ("ours", "package"):
        sys.stdout.write(f"mean of {key}: {np.mean([row[key] for row in rows]):.3f}\n")
    return 0


def chosen(folder: Path, count: int) -> Iterator[tuple[Model, np.ndarray]]:
    """Validation pictures, as many of each set, as the models see them."""
    archives = sorted(folder.glob("*.zip"))
    for number, archive in enumerate(archives):
        model = library.load(archive.stem.replace("_", "-"), "cpu")
        part = read_labelled(archive).subset("val")
        share = count // len(archives) + (number < count % len(archives))
        rows = np.random.default_rng(0).choice(len(part.cases), share, replace=False)
        few = replace(part, cases=tuple(part.cases[row] for row in rows))
        for picture in read_pictures(few, model.card.input):
            yield model, picture


def compared(model: Model, picture: np.ndarray, seeds: int) -> dict[str, object]:
    """Superpixels and mean rank correlation with the reference, ours and the package's."""
    target = int(score(model, picture)[0].argmax())
    row: dict[str, object] = {}
    settings = {"ours": LimeSettings(), "package": LimeSettings(PACKAGE, paired=False, settle=1)}
    quickshift = SegmentationAlgorithm("quickshift", **QUICKSHIFT)
    for name, segmentation in (("ours", LimeSettings().segmentation()), ("package", quickshift)):
        segments = contiguous(segmentation(picture))

        def weights(asked: LimeSettings, seed: int, segments: np.ndarray = segments) -> np.ndarray:
            explainer = TensorLime(model, target, seed, asked, lambda *_: None)
            explainer.explain_instance(
                picture, explainer.answer, (target,), top_labels=None, num_samples=asked.samples, batch_size=32,
                segmentation_fn=lambda _: segments, random_seed=seed,
            )  # fmt: skip
            return explainer.found.raw.ravel()[::EVERY]

        reference = weights(LimeSettings(REFERENCE, paired=False, settle=1), seed=1000)
        ranks = [spearmanr(weights(settings[name], seed), reference).statistic for seed in range(seeds)]
        row |= {f"{name}_superpixels": int(segments.max()) + 1, name: round(float(np.mean(ranks)), 4)}
    return row


if __name__ == "__main__":
    raise SystemExit(main())
