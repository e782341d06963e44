"""Does the model use what a map marks? The picture is taken apart in the map's order, and in that of random maps.

Deletion and insertion (Petsiuk 2018, section 3.2) between the picture and a blurred one, so that what is hidden stays
plausible; ROAD with noisy linear imputation (Rong 2022, section 4). The random maps are the map itself, shifted
around the picture: as smooth, as uneven, in the wrong place.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import cv2
import numpy as np
import torch
import torch.nn.functional as F
from scipy import sparse
from scipy.sparse.linalg import spsolve
from torch import Tensor

from medfusion.explain.heatmap import finite
from medfusion.imaging import display
from medfusion.inference import class_log_odds
from medfusion.library import Model
from medfusion.preprocess import squash, to_batch
from medfusion.types import Explanation, Scan

RANDOM_MAPS = 19  # a map that beats all of them is better than chance with p = 0.05
SHARES = tuple(np.linspace(0, 1, 11).round(2).tolist())  # of the picture, taken away or given back
ROAD_SHARES = (0.2, 0.4)
ROAD_NOISE = 0.01  # of the range, as in the paper
LEAST_SHIFT = 0.25  # of a side: a random map must not be the map again
BLUR = 1 / 22  # of the longer side: sigma 10 px at 224


@dataclass(frozen=True, eq=False)
class Faithfulness:
    """Areas under curves of the target's probability, 0..1, for one map and for RANDOM_MAPS random ones."""

    deletion: float  # small: the answer goes as soon as what the map marks is hidden
    insertion: float  # large: the answer is back as soon as what the map marks is shown
    road: float  # large: -1..1, the probability without the least marked parts, less that without the most marked
    better_than: float  # share of random maps with a smaller insertion - deletion
    road_better_than: float  # share of random maps with a smaller road
    deletion_curve: tuple[float, ...]  # at SHARES
    insertion_curve: tuple[float, ...]
    random_deletion_curve: tuple[float, ...]  # mean of the random maps
    random_insertion_curve: tuple[float, ...]

    @property
    def is_better_than_random(self) -> bool:
        return self.better_than == 1.0


def faithfulness(
    model: Model, scan: Scan, explanation: Explanation, seed: int = 0, progress: Callable[[float], None] | None = None
) -> Faithfulness | None:
    """Measure one map of a frame of a scan; the same seed gives the same figures. None for a map without contrast.

    progress may raise Cancelled.
    """
    spec = model.card.input
    order = np.random.default_rng(seed)
    wanted = (spec.height_px, spec.width_px)
    signed = F.interpolate(torch.from_numpy(explanation.signed)[None, None], size=wanted, mode="area")[0, 0].numpy()
    if np.ptp(signed) == 0:
        return None
    maps = [signed, *(shuffled(signed, order) for _ in range(RANDOM_MAPS))]
    picture = squash(display(scan, explanation.frame), spec)
    sharp = to_batch(picture, spec)
    blurred = to_batch(cv2.GaussianBlur(picture, (0, 0), BLUR * max(wanted)), spec)
    ends = chances(model, torch.cat([sharp, blurred]), explanation.target_index)
    curves, gaps = [], []
    for number, one in enumerate(maps):
        if progress:
            progress(number / len(maps))
        rank = ranks(one, order)
        steps = torch.cat([
            *(torch.where(torch.from_numpy(rank < share), blurred, sharp) for share in SHARES[1:-1]),
            *(torch.where(torch.from_numpy(rank < share), sharp, blurred) for share in SHARES[1:-1]),
            *imputed(sharp, rank, order),
        ])  # fmt: skip
        found = chances(model, steps, explanation.target_index)
        inner = len(SHARES) - 2
        curves.append((
            np.concatenate([ends[:1], found[:inner], ends[1:]]),
            np.concatenate([ends[1:], found[inner : 2 * inner], ends[:1]]),
        ))  # fmt: skip
        gaps.append(float(found[2 * inner :: 2].mean() - found[2 * inner + 1 :: 2].mean()))
    deletion, insertion = (np.stack(rows) for rows in zip(*curves, strict=True))
    deleted, inserted = (np.trapezoid(rows, SHARES, axis=1) for rows in (deletion, insertion))
    score = inserted - deleted
    if progress:
        progress(1.0)
    return Faithfulness(
        deletion=float(deleted[0]),
        insertion=float(inserted[0]),
        road=gaps[0],
        better_than=float((score[1:] < score[0]).mean()),
        road_better_than=float((np.array(gaps[1:]) < gaps[0]).mean()),
        deletion_curve=tuple(deletion[0].tolist()),
        insertion_curve=tuple(insertion[0].tolist()),
        random_deletion_curve=tuple(deletion[1:].mean(0).tolist()),
        random_insertion_curve=tuple(insertion[1:].mean(0).tolist()),
    )


def chances(model: Model, batch: Tensor, target_index: int) -> np.ndarray:
    """Calibrated probabilities (B,) of the target for (B, 3, h, w), zero-centred."""
    odds = [class_log_odds(model, part.to(model.device)) for part in batch.split(32)]
    return finite(torch.cat(odds)[:, target_index].sigmoid().cpu().numpy())


def shuffled(signed: np.ndarray, order: np.random.Generator) -> np.ndarray:
    """The map (h, w), shifted around the picture by LEAST_SHIFT or more in both directions."""
    shift = [round(order.uniform(LEAST_SHIFT, 1 - LEAST_SHIFT) * side) for side in signed.shape]
    return np.roll(signed, shift, axis=(0, 1))


def ranks(signed: np.ndarray, order: np.random.Generator) -> np.ndarray:
    """(h, w) in 0..1: 0 for the strongest support of the target. Places that are alike stand in random order."""
    by = np.lexsort((order.random(signed.size), -signed.ravel()))
    rank = np.empty(signed.size)
    rank[by] = np.arange(signed.size) / signed.size
    return rank.reshape(signed.shape)


def imputed(sharp: Tensor, rank: np.ndarray, order: np.random.Generator) -> Iterator[Tensor]:
    """For each of ROAD_SHARES the picture (1, 3, h, w) without its least marked parts, then without its most marked.

    What is missing is interpolated at half the resolution: it is smooth, and takes a tenth of the time.
    """
    half = F.avg_pool2d(sharp, 2)
    coarse = rank[::2, ::2]
    weights = neighbours(*coarse.shape)
    for share in ROAD_SHARES:
        for gone in (coarse >= 1 - share, coarse < share):
            filled = torch.from_numpy(fill(half[0].numpy(), gone, weights))[None]
            filled = filled + torch.from_numpy(gone * order.normal(0, ROAD_NOISE, gone.shape)).float()
            large = F.interpolate(filled, size=sharp.shape[2:], mode="bilinear")
            where = F.interpolate(torch.from_numpy(gone).float()[None, None], size=sharp.shape[2:])
            yield torch.where(where > 0, large, sharp)


def neighbours(height: int, width: int) -> sparse.csr_array:
    """The weights of the eight pixels around each pixel, (h·w, h·w): straight ones count twice (Rong 2022, eq. 6)."""
    beside = [sparse.eye_array(side, k=1) + sparse.eye_array(side, k=-1) for side in (height, width)]
    whole = [sparse.eye_array(side) for side in (height, width)]
    straight = sparse.kron(whole[0], beside[1]) + sparse.kron(beside[0], whole[1])
    return sparse.csr_array(straight / 6 + sparse.kron(*beside) / 12)


def fill(picture: np.ndarray, gone: np.ndarray, weights: sparse.csr_array) -> np.ndarray:
    """(C, h, w) float32 with each pixel of gone (h, w) as the weighted mean of those around it (Rong 2022, eq. 5)."""
    missing = gone.ravel()
    flat = picture.reshape(len(picture), -1).copy()
    around = weights[missing]
    system = sparse.diags_array(around.sum(axis=1)) - around[:, missing]
    found = spsolve(system.tocsc(), around[:, ~missing] @ flat[:, ~missing].T, permc_spec="MMD_AT_PLUS_A")
    flat[:, missing] = found.T
    return flat.reshape(picture.shape)
