"""`python -m tests.bench.models.routing --data FOLDER`: does each picture find its model, and is all else refused?

Of the six shipped models, whatever a site has promoted. The margin of refusal was chosen on validation pictures, after
all these had been seen. Nearest, median and farthest are of each picture's distance to
the model that it is nearest to, where 1 is the limit of refusal.
The committed table is made with `--out tests/bench/models/results/routing.csv`.
"""

from __future__ import annotations

import argparse
import csv
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path

import cv2
import matplotlib as mpl
import numpy as np
import skimage.data
from scipy.ndimage import gaussian_filter
from sklearn.datasets import load_sample_images
from sklearn.metrics import roc_auc_score

from medfusion import library, router
from medfusion.imaging import display, read_scan
from medfusion.labelled import read_labelled, read_pictures
from tests.bench.models.__main__ import SETS

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
OTHERS = (  # what else these packages bring, but medical pictures, second views and thumbnails
    "cell.png",
    "chessboard_GRAY.png",
    "clock_motion.png",
    "color.png",
    "horse.png",
    "hubble_deep_field.jpg",
    "logo.png",
    "moon.png",
    "motorcycle_left.png",
    "phantom.png",
    "grace_hopper.jpg",
    "logo2.png",
    "Minduka_Present_Blue_Pack.png",
)
CROPS = 20  # of each of these
NOISES = 200
COLUMNS = (
    "pictures",
    "n",
    "to_their_model",
    "to_the_reader",
    "to_another_model",
    "refused",
    "nearest",
    "median",
    "farthest",
    "auroc",
)


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser("python -m tests.bench.models.routing", description=__doc__)
    parser.add_argument("--data", type=Path, required=True, help="folder with the zips of all sets")
    parser.add_argument("--out", type=Path, default=Path("runs/bench/routing.csv"), help="the table to write")
    options = parser.parse_args(arguments)
    known = shipped()
    rng = np.random.default_rng(0)
    pictures = {
        "photographs": photographs(rng),
        "noise": noises(rng),
        "other pictures": others(rng),
    }
    for model_id in known.known:
        data = read_labelled(options.data / f"{model_id.replace('-', '_')}.zip").subset("test")
        pictures[model_id] = read_pictures(data, known.foundation.card.input)
    routes = {kind: [known.route(picture) for picture in part] for kind, part in pictures.items()}
    options.out.parent.mkdir(parents=True, exist_ok=True)
    with options.out.open("w", encoding="utf-8", newline="") as file:
        lines = csv.writer(file)
        lines.writerow(COLUMNS)
        for kind, found in routes.items():
            ids = np.array([route.model_id or "" for route in found])
            near = np.array([min(route.distances.values()) for route in found])
            own, refused = ids == kind, near > 1
            shares = (own, (ids == "") & ~refused, (ids != "") & ~own, refused)
            told = f"{auroc(kind, routes):.4f}" if kind in known.known else ""
            figures = (*(share.mean() for share in shares), near.min(), np.median(near), near.max())
            lines.writerow([kind, len(found), *(f"{figure:.4f}" for figure in figures), told])
    sys.stdout.write(options.out.read_text(encoding="utf-8"))
    return 0


def shipped() -> router.Router:
    """The router as it comes with the program."""
    ids = sorted(name.replace("_", "-") for name in SETS)
    references = {model_id: router.read(library.SHIPPED / model_id) for model_id in ids}
    known = {model_id: found for model_id, found in references.items() if found}
    return router.Router(library.load(str(library.SHIPPED / router.FOUNDATION)), known)


def auroc(model_id: str, routes: dict[str, list[router.Route]]) -> float:
    """How well nearness to one model tells its own pictures from all others."""
    near = [-route.distances[model_id] for found in routes.values() for route in found]
    own = [kind == model_id for kind, found in routes.items() for _ in found]
    return float(roc_auc_score(own, near))


def photographs(rng: np.random.Generator) -> Iterator[np.ndarray]:
    """Photographs of scikit-image and scikit-learn, and random parts of them."""
    wholes = [*(getattr(skimage.data, name)() for name in PHOTOGRAPHS), *load_sample_images().images]
    return with_parts(wholes, rng)


def others(rng: np.random.Generator) -> Iterator[np.ndarray]:
    """The same of pictures of scikit-image and matplotlib, as the program reads them."""
    folders = (Path(skimage.data.__file__).parent, Path(mpl.get_data_path()) / "sample_data")
    paths = [next(folder / name for folder in folders if (folder / name).exists()) for name in OTHERS]
    return with_parts([display(read_scan(path.read_bytes(), path.name)) for path in paths], rng)


def with_parts(wholes: Iterable[np.ndarray], rng: np.random.Generator) -> Iterator[np.ndarray]:
    for whole in wholes:
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
