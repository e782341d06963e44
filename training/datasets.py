"""From a labelled set to training data: patient-safe splits and pictures decoded once."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from sklearn.model_selection import StratifiedGroupKFold
from torch import Tensor
from torch.utils.data import Dataset, Sampler

from medfusion.errors import DataError
from medfusion.labelled import LabelledSet, fingerprint, read_labelled, read_pictures
from medfusion.preprocess import standardise
from medfusion.types import InputSpec, ModelCard
from training.augment import Recipe, augment
from training.balance import rarest_label

FEWEST_CASES = 5  # of each class in each split: below that no figure means anything
FOLDS = (4, 7)  # parts of a set without a given split, at least and at most: one each is for val and test


def with_splits(data: LabelledSet, seed: int = 0) -> LabelledSet:
    """The given split, or a stratified one that keeps each patient on one side. Raises DataError on too few cases.

    Runs keep to the default seed, whatever theirs: else a run that starts from the model of another would be compared
    with it on cases that this one has learned.
    Where a case may have several labels, it is stratified by the rarest of them.
    """
    if len(data.classes) < 2 and not data.several:
        raise DataError(
            f"All cases are {data.classes[0]!r}. A model tells at least two classes apart: add another one."
        )
    split = data if data.has_splits else _divide(data, seed)
    counts = split.counts()
    for name in ("train", "val", *(["test"] if "test" in counts else [])):
        have = {label: counts.get(name, {}).get(label, 0) for label in split.classes}
        for label, cases in have.items():
            if cases < FEWEST_CASES:
                raise DataError(
                    f"Class {label!r} has {cases} cases in {name}, fewer than {FEWEST_CASES}. "
                    + ("Add cases." if data.has_splits else _of_patients(data, label))
                )
        for label, cases in have.items():  # only of several labels can nearly all cases have one
            others = len(split.subset(name).cases) - cases
            if others < FEWEST_CASES:
                raise DataError(
                    f"Only {others} cases in {name} are not {label!r}; {FEWEST_CASES} are needed. Add cases."
                )
    return split


def _of_patients(data: LabelledSet, label: str) -> str:
    """Why a class that has cases enough cannot be divided."""
    own = [case for case in data.cases if label in case.labels]
    patients = len({case.patient_id for case in own})
    return f"All its {len(own)} cases are of {patients} patients, who stay on one side each. Add cases of others."


def _divide(data: LabelledSet, seed: int) -> LabelledSet:
    """One part each for val and test, of a seventh; of small sets a quarter at most, so that each has cases enough."""
    patients = np.array([case.patient_id for case in data.cases])
    strata = rarest_label(data.labels())
    sizes = data.labels().sum(axis=0) if data.several else np.bincount(strata)
    needed = FOLDS[0] * FEWEST_CASES
    short = {name: int(size) for name, size in zip(data.classes, sizes, strict=True) if size < needed}
    if short:
        have = ", ".join(f"{name!r} has {size} cases" for name, size in short.items())
        more = ", ".join(f"{needed - size} to {name!r}" for name, size in short.items())
        raise DataError(
            f"Class {have}; {needed} of each are needed, so that training, validation and test have some. Add {more}."
        )
    count = min(FOLDS[1], int(min(sizes)) // FEWEST_CASES)
    if len(set(patients)) < count:
        raise DataError(f"All cases are of {len(set(patients))} patients; {count} are needed. Add cases of others.")
    folds = StratifiedGroupKFold(count, shuffle=True, random_state=seed)
    part = np.empty(len(data.cases), dtype=int)
    for index, (_, members) in enumerate(folds.split(patients, strata, patients)):
        part[members] = index
    names = {0: "test", 1: "val"}
    cases = (replace(case, split=names.get(int(p), "train")) for case, p in zip(data.cases, part, strict=True))
    return replace(data, cases=tuple(cases))


def decode(data: LabelledSet, spec: InputSpec, cache: Path) -> np.ndarray:
    """All pictures as a read-only (n, h, w, 3) uint8 map on disk, decoded once and kept at cache.

    The map is shared by all workers. A cache of another size, or of files that are others now, is made anew.
    """
    shape, files = (len(data.cases), spec.height_px, spec.width_px, 3), fingerprint(data)
    done = cache.with_suffix(".done")  # holds of what files
    if done.exists() and done.read_text() == files and (pictures := np.load(cache, mmap_mode="r")).shape == shape:
        return pictures
    cache.parent.mkdir(parents=True, exist_ok=True)
    done.unlink(missing_ok=True)
    cache.unlink(missing_ok=True)
    into = np.lib.format.open_memmap(cache, mode="w+", dtype=np.uint8, shape=shape)
    take_room(cache)
    for _ in read_pictures(data, spec, into):
        pass
    into.flush()
    done.write_text(files)
    return np.load(cache, mmap_mode="r")


def take_room(path: Path) -> None:
    """Have the disk hold all of a sparse file now: a full one is an OSError here, and a kill while it is filled."""
    if hasattr(os, "posix_fallocate"):
        with path.open("r+b") as file:
            os.posix_fallocate(file.fileno(), 0, path.stat().st_size)


@dataclass(frozen=True)
class Pictures(Dataset[tuple[Tensor, Tensor]]):
    """Decoded pictures with labels, as they are. Items are ((3, h, w) float32, label).

    labels: (n,) int64, or (n, K) of 0 and 1 where a case may have several.

    rows: which pictures of the shared map, in order. groups: for each of them which augmentation it gets.
    """

    pictures: np.ndarray
    rows: np.ndarray
    labels: np.ndarray
    spec: InputSpec
    groups: np.ndarray

    def __reduce__(self) -> tuple[object, ...]:
        """For another process, a map on disk is its path."""
        disk = isinstance(self.pictures, np.memmap) and self.pictures.filename
        held = (self.rows, self.labels, self.spec, self.groups)
        return (opened, (str(disk), *held)) if disk else (Pictures, (self.pictures, *held))

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        return self.item(np.array(self.pictures[self.rows[index]]), index)

    def item(self, picture: np.ndarray, index: int) -> tuple[Tensor, Tensor]:
        """The picture of a case, changed or not, as the network wants it."""
        return standardise(torch.from_numpy(picture).permute(2, 0, 1), self.spec), torch.as_tensor(self.labels[index])


def opened(path: str, rows: np.ndarray, labels: np.ndarray, spec: InputSpec, groups: np.ndarray) -> Pictures:
    """Pictures of a map on disk, as decode made it."""
    return Pictures(np.load(path, mmap_mode="r"), rows, labels, spec, groups)


class Draw(NamedTuple):
    """One training example: which case, and what seeds its augmentation."""

    case: int
    epoch: int
    number: int


@dataclass(frozen=True)
class Augmented(Dataset[tuple[Tensor, Tensor]]):
    """Random variants of training pictures. The same draw gives the same variant, in any worker and after a resume."""

    plain: Pictures
    recipes: tuple[Recipe, ...]  # by group
    seed: int
    side_px: Callable[[int], int]  # of the crops, by epoch

    def __len__(self) -> int:
        return len(self.plain)

    def __getitem__(self, draw: Draw) -> tuple[Tensor, Tensor]:
        rng = np.random.default_rng((self.seed, draw.epoch, draw.number))
        picture = self.plain.pictures[self.plain.rows[draw.case]]
        recipe = self.recipes[self.plain.groups[draw.case]]
        return self.plain.item(augment(picture, recipe, self.side_px(draw.epoch), rng), draw.case)


class Order(Sampler[Draw]):
    """Each case once an epoch in random order, or as often as draws says on average. Lightning calls set_epoch.

    Of several processes each gets its share of every batch. batch_size: of all of them together.
    """

    def __init__(
        self, cases: int, draws: np.ndarray | None, seed: int, batch_size: int = 1, rank: int = 0, processes: int = 1
    ) -> None:
        self.cases = cases
        self.rank, self.processes = rank, processes
        self.draws = None if draws is None else torch.from_numpy(draws)
        self.seed = seed
        self.epoch = 0
        self.share = max(1, min(batch_size, self.drawn) // processes)

    def set_epoch(self, epoch: int) -> None:
        self.epoch = epoch

    @property
    def drawn(self) -> int:
        """By all processes in an epoch."""
        return self.cases if self.draws is None else round(float(self.draws.sum()))

    def __len__(self) -> int:
        if self.processes == 1:
            return self.drawn
        return self.drawn // (self.share * self.processes) * self.share  # the last ones only if all get some

    def __iter__(self) -> Iterator[Draw]:
        generator = torch.Generator().manual_seed(self.seed * 100_003 + self.epoch)
        if self.draws is None:
            indices = torch.randperm(self.cases, generator=generator)
        else:
            indices = systematic(self.draws, self.drawn, generator)
        draws = (Draw(index, self.epoch, number) for number, index in enumerate(indices.tolist()))
        own = (draw for draw in draws if draw.number // self.share % self.processes == self.rank)
        return islice(own, len(self))


def systematic(draws: Tensor, count: int, generator: torch.Generator) -> Tensor:
    """(count,) cases in random order, each as often as draws says, rounded up or down (Madow 1949)."""
    order = torch.randperm(len(draws), generator=generator)
    ends = (draws[order] * (count / draws.sum())).cumsum(0)
    at = torch.arange(count, dtype=ends.dtype) + torch.rand(1, generator=generator, dtype=ends.dtype)
    drawn = order[torch.searchsorted(ends, at, right=True).clamp(max=len(draws) - 1)]
    return drawn[torch.randperm(count, generator=generator)]


def pictures_of(
    data: LabelledSet, pictures: np.ndarray, split: str, classes: tuple[str, ...], spec: InputSpec
) -> Pictures:
    """The decoded pictures of one split."""
    rows = np.flatnonzero([case.split == split for case in data.cases])
    return Pictures(pictures, rows, data.labels(classes)[rows], spec, np.zeros(len(rows), dtype=int))


def parts_of(card: ModelCard, source: Path, runs: Path) -> tuple[Pictures, Pictures]:
    """The training and validation pictures that a model was made from, decoded once under runs."""
    data = with_splits(read_labelled(source))
    pictures = decode(data, card.input, runs / card.id / "pictures.npy")
    train, val = (pictures_of(data, pictures, split, card.classes, card.input) for split in ("train", "val"))
    return train, val
