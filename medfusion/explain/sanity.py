"""Do maps depend on what the model has learned? Its weights are randomised (Adebayo 2018, section 3.1).

A method whose maps stay alike shows the picture, not the model, and is refused for it: see explain.refusal.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from copy import deepcopy
from dataclasses import replace

import numpy as np
from scipy.stats import spearmanr

from medfusion.explain import EXPLAINERS, explain
from medfusion.explain.agreement import cells
from medfusion.inference import score
from medfusion.library import Model
from medfusion.network import build
from medfusion.types import Explanation, Scan

PARTS = ("head", "norm", "encoder", "embed", "deep", "stages", "stem")  # of MedFusionNet, from the answer down
QUICK: Mapping[str, Mapping[str, object]] = {"lime": {"samples": 300}}


def lessened(model: Model, seed: int = 1) -> dict[str, Model]:
    """The model with its parts randomised down to one, for each part in order. They serve all methods."""
    return {part: randomised(model, PARTS[: number + 1], seed) for number, part in enumerate(PARTS)}


def likenesses(
    model: Model, others: Mapping[str, Model], pictures: Sequence[np.ndarray], method: str
) -> dict[str, float]:
    """Mean rank correlation, without its sign, between the maps of one model and of each other model, 0..1.

    others: as `lessened` makes them, of which a slow method takes the one with all parts randomised only; and any more.
    pictures: display pictures, (h, w, 3) uint8. The most probable class of each is explained.
    """
    spared = PARTS[:-1] if EXPLAINERS[method].is_slow else ()
    scans = [Scan(picture[None], "", str(number), "decoded") for number, picture in enumerate(pictures)]
    targets = [int(score(model, picture)[0].argmax()) for picture in pictures]

    def maps(of: Model) -> list[Explanation]:
        of, pairs = unjudged(of), zip(scans, targets, strict=True)
        return [explain(of, scan, target, method, settings=QUICK.get(method)) for scan, target in pairs]

    own = maps(model)
    return {
        name: float(np.mean([likeness(one, other) for one, other in zip(own, maps(of), strict=True)]))
        for name, of in others.items()
        if name not in spared
    }


def unjudged(model: Model) -> Model:
    """The same without figures: an earlier refusal must not stop a new look. Its network is compiled anew."""
    return replace(model, card=replace(model.card, metrics={})) if model.card.metrics else model


def randomised(model: Model, parts: Sequence[str], seed: int) -> Model:
    """A copy with some parts as they were before any training."""
    fresh = build(model.card.size, model.network.head.out_features, seed)
    network = deepcopy(model.network)
    for part in parts:
        getattr(network, part).load_state_dict(getattr(fresh, part).state_dict())
    return replace(unjudged(model), network=network.to(model.device))


def likeness(one: Explanation, other: Explanation) -> float:
    """Rank correlation without its sign, 0..1; 0 where a map is the same everywhere."""
    first, second = cells(one.signed), cells(other.signed)
    if np.ptp(first) == 0 or np.ptp(second) == 0:
        return 0.0
    return abs(float(spearmanr(first, second).statistic))
