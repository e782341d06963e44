"""What to do when classes are imbalanced: one choice of the training config, BALANCES."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

Loss = Callable[[Tensor, Tensor], Tensor]  # class logits (B, K) and labels (B,), or (B, K) of 0 and 1, to a scalar

BALANCES = {
    "none": "every case counts the same",
    "weights": "cases of rarer classes weigh more in the loss",
    "sampler": "cases of rarer classes are drawn more often",
    "focal": "cases that are already right weigh less (Lin et al. 2017)",
    "logit_adjusted": "class frequencies are added to the logits in training only (Menon et al. 2021)",
}
WEIGHTING = ("weights", "sampler", "logit_adjusted")  # by class_weighting: answers lean to rare classes
FOCUS = 2.0  # gamma of Lin et al. 2017, section 3.2


def frequencies(labels: np.ndarray, classes: int) -> np.ndarray:
    """(K,) share of each class; one that does not occur counts as if one case of it did."""
    return np.maximum(np.bincount(labels, minlength=classes), 1) / len(labels)


def loss_of(balance: str, labels: np.ndarray, classes: int, power: float, smoothing: float) -> Loss:
    """The training loss. power: 0 treats all cases alike, 1 all classes alike."""
    if labels.ndim == 2:
        return loss_of_several(balance, labels, power, smoothing)
    share = torch.tensor(frequencies(labels, classes), dtype=torch.float32)
    if balance == "weights":
        weights = share**-power
        weights = weights / (weights * share).sum()  # mean 1 over the cases
        return lambda scores, y: F.cross_entropy(scores, y, weights.to(scores), label_smoothing=smoothing)
    if balance == "focal":
        return lambda scores, y: focal(scores, y, smoothing)
    if balance == "logit_adjusted":
        shift = power * share.log()
        return lambda scores, y: F.cross_entropy(scores + shift.to(scores), y, label_smoothing=smoothing)
    return lambda scores, y: F.cross_entropy(scores, y, label_smoothing=smoothing)


def loss_of_several(balance: str, labels: np.ndarray, power: float, smoothing: float) -> Loss:
    """The same choices where a case may have several labels (n, K): each is a yes or no of its own."""
    share = torch.tensor(labels.mean(axis=0).clip(1 / len(labels), 1 - 1 / len(labels)), dtype=torch.float32)
    odds = share / (1 - share)
    weight = odds**-power if balance == "weights" else None
    shift = power * odds.log() if balance == "logit_adjusted" else torch.zeros(len(share))

    def loss(scores: Tensor, y: Tensor) -> Tensor:
        truth, logits = y.to(scores), scores + shift.to(scores)
        smooth = truth * (1 - smoothing) + smoothing / 2
        if balance != "focal":
            more = None if weight is None else weight.to(scores)
            return F.binary_cross_entropy_with_logits(logits, smooth, pos_weight=more)
        losses = F.binary_cross_entropy_with_logits(logits, smooth, reduction="none")
        right = torch.where(truth == 1, logits.sigmoid(), (-logits).sigmoid())
        return ((1 - right) ** FOCUS * losses).mean()

    return loss


def focal(scores: Tensor, labels: Tensor, smoothing: float = 0.0) -> Tensor:
    """Cross-entropy times (1 - p)^gamma, where p is the probability of the right class."""
    losses = F.cross_entropy(scores, labels, label_smoothing=smoothing, reduction="none")
    right = scores.softmax(1).gather(1, labels[:, None])[:, 0]
    return ((1 - right) ** FOCUS * losses).mean()


def draws(labels: np.ndarray, count: float, power: float) -> np.ndarray:
    """(n,) how often to draw each case in an epoch of count cases, on average. power as in loss_of."""
    rarest = rarest_label(labels)
    counts = np.bincount(rarest)
    weights = (counts / len(labels))[rarest] ** -power
    return count * weights / weights.sum()


def rarest_label(labels: np.ndarray) -> np.ndarray:
    """(n,) the label of each case; of several (n, K) the one with the fewest cases, and K where there is none."""
    if labels.ndim == 1:
        return labels
    order = np.argsort(labels.sum(axis=0), kind="stable")
    return np.where(labels.any(axis=1), order[labels[:, order].argmax(axis=1)], labels.shape[1])
