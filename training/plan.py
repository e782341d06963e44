"""What a run is asked to do: one JSON file, written by the Fine-tune page and read by `python -m training run`."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, fields
from pathlib import Path

from medfusion.errors import ConfigError
from medfusion.types import ModelCard
from training.config import TrainConfig
from training.finish import About, about_from


@dataclass(frozen=True)
class Plan:
    model_id: str
    settings: TrainConfig
    about: About
    left_out: tuple[str, ...] = ()  # paths in the set that the run does not use: copies, unreadable files

    def as_json(self) -> str:
        return json.dumps(asdict(self), indent=2, ensure_ascii=False) + "\n"


def read_plan(text: str) -> Plan:
    """Parse and check a plan. Raises ConfigError with the field that is unknown or out of range."""
    try:
        raw = json.loads(text)
        left_out = tuple(map(str, raw.get("left_out", ())))
        return Plan(str(raw["model_id"]), settings_from(raw["settings"]), about_from(raw["about"]), left_out)
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise ConfigError(f"These are not the settings of a run ({error}). Save them again from a run.") from error


def settings_from(given: dict[str, object]) -> TrainConfig:
    """Settings over the defaults. Raises ConfigError on an unknown name or a value of another type."""
    known = {setting.name: type(setting.default) for setting in fields(TrainConfig)}
    for name, value in given.items():
        if name not in known:
            raise ConfigError(f"There is no setting {name!r}. Known: {', '.join(known)}.")
        allowed = (float, int) if known[name] is float else known[name]
        if isinstance(value, bool) or not isinstance(value, allowed):  # to Python, True is a whole number
            raise ConfigError(f"{name} is {value!r}. It must be of type {known[name].__name__}.")
    return TrainConfig(**given)  # type: ignore[arg-type]


def settings_of(card: ModelCard) -> TrainConfig:
    """The settings that a model was made with, as far as its card tells and they still exist, from no other model."""
    known = {setting.name for setting in fields(TrainConfig)} - {"start"}
    told: dict[str, object] = dict(card.training.get("config", {}))  # type: ignore[call-overload]
    return TrainConfig(**{name: value for name, value in told.items() if name in known})  # type: ignore[arg-type]


def write_plan(path: Path, plan: Plan) -> None:
    path.write_text(plan.as_json(), encoding="utf-8")
