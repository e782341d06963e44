"""What kind of pictures a set holds, as the router sees them: those that a model here was trained on, or others."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

import numpy as np

from medfusion import library, router

LOOKED_AT = 12  # pictures, spread over the set
MOST = 0.5  # a kind that more of them are of is that of the set


@dataclass(frozen=True)
class Kinds:
    """By kind of picture in words, how many of those looked at are of it; "" where none is known."""

    counts: dict[str, int] = field(default_factory=dict)
    model_id: str = ""  # that was trained on most of them


def guess(pictures: list[np.ndarray]) -> Kinds:
    """pictures: (H, W) or (H, W, 3) uint8. Says nothing where no router is installed."""
    known = router.load()
    if known is None or not pictures:
        return Kinds()
    nearest = Counter(nearest_of(known, picture) for picture in pictures)
    words = {card.id: card.modality for card in library.list_cards()}
    counts: Counter[str] = Counter()
    for model_id, number in nearest.items():
        counts[words.get(model_id, "")] += number
    first, number = max(nearest.items(), key=lambda one: one[1])
    return Kinds(dict(counts.most_common()), first if number > MOST * len(pictures) else "")


def nearest_of(known: router.Router, picture: np.ndarray) -> str:
    """The model whose pictures this one is nearest to, "" beyond the limit of all."""
    distances = known.route(picture).distances
    model_id = min(distances, key=distances.__getitem__)
    return model_id if distances[model_id] <= 1 else ""


def spread(count: int) -> set[int]:
    """Which of so many pictures are looked at."""
    return set(np.linspace(0, count - 1, min(LOOKED_AT, count)).astype(int).tolist())
