"""`python -m tests.bench.models.routing --data FOLDER`: does each picture find its model, and is all else refused?"""

from __future__ import annotations

import argparse
import csv
import sys
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
import skimage.data
from scipy.ndimage import gaussian_filter
from sklearn.datasets import load_sample_images
from sklearn.metrics import roc_auc_score

from medfusion import router
from medfusion.labelled import read_labelled, read_pictures
from tests.bench.models.report import RESULTS

PHOTOGRAPHS = (
    "astronaut",
    "coffee",
    "chelsea",
    "camera",
    "coins",
    "page",
    "brick",
    "grass",
    "gravel",
    "rocket",
    "text",
)
CROPS = 20  # of each photograph
NOISES = 200


def main() -> int:
    parser = argparse.ArgumentParser("python -m tests.bench.models.routing", description=__doc__)
    parser.add_argument("--data", type=Path, required=True, help="folder with the zips of all sets")
    parser.add_argument("--out", type=Path, default=RESULTS / "routing.csv")
    options = parser.parse_args()
    known = router.load()
    if known is None:
        sys.stderr.write("error: no foundation model is installed with references made with it.\n")
        return 2
    rng = np.random.default_rng(0)
    pictures = {"photographs": photographs(rng), "noise": noises(rng)}
    for model_id in known.known:
        data = read_labelled(options.data / f"{model_id.replace('-', '_')}.zip").subset("test")
        pictures[model_id] = read_pictures(data, known.foundation.card.input)
    routes = {kind: [known.route(picture) for picture in part] for kind, part in pictures.items()}
    with options.out.open("w", encoding="utf-8", newline="") as file:
        lines = csv.writer(file)
        lines.writerow(["pictures", "n", "to_their_model", "to_the_reader", "to_another_model", "refused", "auroc"])
        for kind, found in routes.items():
            ids = np.array([route.model_id or "" for route in found])
            refused = np.array([min(route.distances.values()) > 1 for route in found])
            own = ids == kind
            shares = (own, (ids == "") & ~refused, (ids != "") & ~own, refused)
            told = f"{auroc(kind, routes):.4f}" if kind in known.known else ""
            lines.writerow([kind, len(found), *(f"{share.mean():.4f}" for share in shares), told])
    sys.stdout.write(options.out.read_text(encoding="utf-8"))
    return 0


def auroc(model_id: str, routes: dict[str, list[router.Route]]) -> float:
    """How well nearness to one model tells its own pictures from all others."""
    near = [-route.distances[model_id] for found in routes.values() for route in found]
    own = [kind == model_id for kind, found in routes.items() for _ in found]
    return float(roc_auc_score(own, near))


def photographs(rng: np.random.Generator) -> Iterator[np.ndarray]:
    """Photographs of scikit-image and scikit-learn, and random parts of them."""
    for whole in [*(getattr(skimage.data, name)() for name in PHOTOGRAPHS), *load_sample_images().images]:
        yield whole
        for _ in range(CROPS):
            side = int(rng.integers(min(whole.shape[:2]) // 3, min(whole.shape[:2])))
            top, left = (int(rng.integers(0, length - side)) for length in whole.shape[:2])
            yield np.ascontiguousarray(whole[top : top + side, left : left + side])


def noises(rng: np.random.Generator) -> Iterator[np.ndarray]:
    """Noise of every grain, grey and coloured, even and cloudy."""
    for index in range(NOISES):
        channels = (3,) if index % 2 else ()
        if index % 4 < 2:
            side = int(rng.integers(2, 224))
            yield cv2.resize(rng.integers(0, 256, (side, side, *channels), dtype=np.uint8), (224, 224))
        else:
            spread = rng.uniform(1, 30)
            cloud = gaussian_filter(rng.normal(size=(224, 224, *channels)), (spread, spread, 0)[: 2 + len(channels)])
            yield np.uint8(255 * (cloud - cloud.min()) / np.ptp(cloud))


if __name__ == "__main__":
    sys.exit(main())
