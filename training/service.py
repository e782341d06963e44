"""Everything that pages may ask of this package: data in, check, settings, run, result, promotion."""

from __future__ import annotations

import json
from typing import Any, BinaryIO

from medfusion import library
from medfusion.access import TRAINER, needs
from medfusion.errors import ModelNotFound
from medfusion.types import ModelCard
from training import jobs, public_sets, sets
from training import promote as promotion
from training.augment import RECIPES
from training.balance import BALANCES
from training.config import PRECISIONS, STARTS, TrainConfig
from training.estimate import Estimate, estimate
from training.events import Event, epochs, in_lines, last, read_events
from training.finish import About
from training.jobs import Run, list_runs
from training.jobs import find as find_run
from training.plan import Plan, read_plan
from training.preflight import Preflight, in_words_of_kind
from training.promote import SHORTEST_REASON, PromotionRefused, Version, list_versions, objections, result_of
from training.public_sets import PX, PublicSet, list_public
from training.sets import StoredSet, check, forget_check, list_sets, sheets
from training.sets import find as find_set

__all__ = [
    "BALANCES",
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


start, stop, cancel = needs(TRAINER)(jobs.start), needs(TRAINER)(jobs.stop), needs(TRAINER)(jobs.cancel)
resume, delete, finish = needs(TRAINER)(jobs.resume), needs(TRAINER)(jobs.delete), needs(TRAINER)(jobs.finish)
leave_out, delete_set = needs(TRAINER)(sets.leave_out), needs(TRAINER)(sets.delete)
keep_public = needs(TRAINER)(public_sets.keep_public)
promote, roll_back = needs(TRAINER)(promotion.promote), needs(TRAINER)(promotion.roll_back)


@needs(TRAINER)
def keep(name: str, upload: BinaryIO, size: int) -> StoredSet:
    """Store an uploaded zip, or a file of the form of MedMNIST. Raises DataError when it is no labelled set."""
    return (public_sets.keep_file if name.lower().endswith(".npz") else sets.keep)(name, upload, size)


def crossed_of(run: Run) -> dict[str, Any] | None:
    """What cross-validation found, as in folds.measured; None where there was none."""
    path = run.folder / "cross_validation.json"  # training.folds is not imported for it: PyTorch takes seconds
    return json.loads(path.read_text(encoding="utf-8")) if path.exists() else None


def card_of(run: Run) -> ModelCard:
    """The card of a run's model, promoted or not. Raises ModelError when it is gone or damaged."""
    return library.read_card(run.folder / "model")


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
