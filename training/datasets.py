"""From a labelled set to training data: patient-safe splits and pictures decoded once."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from sklearn.model_selection import StratifiedGroupKFold
from torch import Tensor
from torch.utils.data import Dataset
from torchvision.transforms import v2

from medfusion.errors import DataError
from medfusion.labelled import LabelledSet, read_pictures
from medfusion.preprocess import standardise
from medfusion.types import InputSpec

FEWEST_CASES = 5  # of each class in each split: below that no figure means anything
FOLDS = 7  # without a given split, one part each for val and test


def with_splits(data: LabelledSet, seed: int) -> LabelledSet:
    """The given split, or a stratified one that keeps each patient on one side. Raises DataError on too few cases."""
    split = data if data.has_splits else _divide(data, seed)
    counts = split.counts()
    for name in ("train", "val"):
        for label in split.classes:
            have = counts.get(name, {}).get(label, 0)
            if have < FEWEST_CASES:
                raise DataError(f"Class {label!r} has {have} cases in {name}, fewer than {FEWEST_CASES}. Add cases.")
    return split


def _divide(data: LabelledSet, seed: int) -> LabelledSet:
    patients = np.array([case.patient_id for case in data.cases])
    smallest = min(np.bincount(data.labels()))
    if smallest < FOLDS or len(set(patients)) < FOLDS:
        raise DataError(
            f"The smallest class has {smallest} cases; {FOLDS}, of as many patients, are needed. Add cases."
        )
    folds = StratifiedGroupKFold(FOLDS, shuffle=True, random_state=seed)
    part = np.empty(len(data.cases), dtype=int)
    for index, (_, members) in enumerate(folds.split(patients, data.labels(), patients)):
        part[members] = index
    names = {0: "test", 1: "val"}
    cases = (replace(case, split=names.get(int(p), "train")) for case, p in zip(data.cases, part, strict=True))
    return replace(data, cases=tuple(cases))


def decode(data: LabelledSet, spec: InputSpec, cache: Path) -> np.ndarray:
    """All pictures as a read-only (n, h, w, 3) uint8 map on disk, decoded once and kept at cache.

    The map is shared by all workers. A cache of another size or count is made anew.
    """
    shape = (len(data.cases), spec.height_px, spec.width_px, 3)
    done = cache.with_suffix(".done")
    if done.exists() and (pictures := np.load(cache, mmap_mode="r")).shape == shape:
        return pictures
    cache.parent.mkdir(parents=True, exist_ok=True)
    done.unlink(missing_ok=True)
    into = np.lib.format.open_memmap(cache, mode="w+", dtype=np.uint8, shape=shape)
    for _ in read_pictures(data, spec, into):
        pass
    into.flush()
    done.touch()
    return np.load(cache, mmap_mode="r")


@dataclass(frozen=True)
class Pictures(Dataset[tuple[Tensor, int]]):
    """Decoded pictures with labels; transform works on (3, h, w) uint8. Items are ((3, h, w) float32, label)."""

    pictures: np.ndarray
    labels: np.ndarray
    spec: InputSpec
    transform: v2.Transform | None = None

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        picture = torch.from_numpy(np.array(self.pictures[index])).permute(2, 0, 1)
        if self.transform is not None:
            picture = self.transform(picture)
        return standardise(picture, self.spec), int(self.labels[index])
