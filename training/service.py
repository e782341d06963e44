"""Everything that pages may ask of this package: data in, check, settings, run, result, promotion."""

from __future__ import annotations

import json
from typing import Any, BinaryIO

from medfusion import library
from medfusion.access import READER, TRAINER, needs
from medfusion.errors import ModelNotFound
from medfusion.types import ModelCard
from training import estimate as trial
from training import events, jobs, plan, public_sets, sets
from training import promote as promotion
from training.augment import RECIPES
from training.balance import BALANCES
from training.config import CALIBRATIONS, PRECISIONS, STARTS, TrainConfig
from training.estimate import Estimate
from training.events import Event, epochs, in_lines, last
from training.finish import About
from training.jobs import Run
from training.plan import Plan
from training.preflight import Preflight, in_words_of_kind
from training.promote import SHORTEST_REASON, PromotionRefused, Version
from training.public_sets import PX, PublicSet, list_public
from training.sets import StoredSet

__all__ = [
    "BALANCES",
    "CALIBRATIONS",
    "PRECISIONS",
    "PX",
    "RECIPES",
    "SHORTEST_REASON",
    "STARTS",
    "About",
    "Estimate",
    "Event",
    "Plan",
    "Preflight",
    "PromotionRefused",
    "PublicSet",
    "Run",
    "StoredSet",
    "TrainConfig",
    "Version",
    "cancel",
    "card_of",
    "check",
    "copies",
    "crossed_of",
    "delete",
    "delete_set",
    "epochs",
    "estimate",
    "find_run",
    "find_set",
    "finish",
    "forget_check",
    "in_lines",
    "in_words_of_kind",
    "keep",
    "keep_public",
    "last",
    "leave_out",
    "list_public",
    "list_runs",
    "list_sets",
    "list_starts",
    "list_versions",
    "objections",
    "promote",
    "read_events",
    "read_plan",
    "result_of",
    "resume",
    "roll_back",
    "sheets",
    "start",
    "stop",
]


trains, reads = needs(TRAINER), needs(READER)

start, stop, cancel = trains(jobs.start), trains(jobs.stop), trains(jobs.cancel)
resume, delete, finish = trains(jobs.resume), trains(jobs.delete), trains(jobs.finish)
list_runs, find_run, read_events = trains(jobs.list_runs), trains(jobs.find), trains(events.read_events)
leave_out, delete_set = trains(sets.leave_out), trains(sets.delete)
list_sets, find_set, check = trains(sets.list_sets), trains(sets.find), trains(sets.check)
sheets, copies, forget_check = trains(sets.sheets), trains(sets.copies), trains(sets.forget_check)
keep_public = trains(public_sets.keep_public)
read_plan, estimate = trains(plan.read_plan), trains(trial.estimate)
promote, roll_back = trains(promotion.promote), trains(promotion.roll_back)
objections, result_of = trains(promotion.objections), trains(promotion.result_of)
list_versions = reads(promotion.list_versions)  # they stand on the Model library page


@trains
def keep(name: str, upload: BinaryIO, size: int) -> StoredSet:
    """Store an uploaded zip, or a file of the form of MedMNIST. Raises DataError when it is no labelled set."""
    return (public_sets.keep_file if name.lower().endswith(".npz") else sets.keep)(name, upload, size)


@trains
def crossed_of(run: Run) -> dict[str, Any] | None:
    """What cross-validation found, as in folds.measured; None where there was none."""
    path = run.folder / "cross_validation.json"  # training.folds is not imported for it: PyTorch takes seconds
    return json.loads(path.read_text(encoding="utf-8")) if path.exists() else None


@trains
def card_of(run: Run) -> ModelCard:
    """The card of a run's model, promoted or not. Raises ModelError when it is gone or damaged."""
    return library.read_card(run.folder / "model")


@trains
def list_starts(classes: tuple[str, ...]) -> list[ModelCard]:
    """The models that a run may start from, those with the same classes first, then the foundation."""
    order = {True: 0, False: 2}
    known = library.list_cards()
    return sorted(known, key=lambda card: 1 if card.role == "foundation" else order[set(card.classes) == set(classes)])


def recipe_of(card: ModelCard) -> str:
    """The augmentation that a model was trained with."""
    config = card.training.get("config", {})
    named = config.get("augmentation", "") if isinstance(config, dict) else ""
    return named if named in RECIPES else "general"


def next_model_id(wanted: str) -> str:
    """The wanted id, with a number where it is taken."""
    number, name = 1, wanted
    while True:
        try:
            library.find(name)
        except ModelNotFound:
            return name
        number += 1
        name = f"{wanted}-{number}"
