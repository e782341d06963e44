"""From a finished run to the model in use, in one step, and back again.

Every version lies in a folder of its own, MODEL/VERSION; the library sees a link to one of them. Moving the link is the
transaction: a reader sees the old model or the new one, never half of each.
"""

from __future__ import annotations

import json
import os
import re
import shutil
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from medfusion import library, places
from medfusion.errors import ConfigError, MedFusionError
from medfusion.explain import EXPLAINERS, refusal
from medfusion.types import ModelCard
from training import compare, jobs
from training.readme import readme

ID = re.compile(r"[a-z0-9]+(-[a-z0-9]+)*")
SHORTEST_REASON = 10  # characters
MAIN_MAPS = ("gradcam", "lime")  # what the Analyse page shows first


class PromotionRefused(MedFusionError):
    """The model is worse, or its maps show nothing that it learned. The message says what and what to do."""


@dataclass(frozen=True)
class Version:
    card: ModelCard
    folder: Path
    in_use: bool

    @property
    def promoted(self) -> str:
        """When, as 2026-11-23T20:15:00+00:00."""
        return str(self.promotion["at"])

    @property
    def replaces(self) -> str:
        """The version that was in use before; "" for the shipped model, or none."""
        return str(self.promotion["replaces"])

    @property
    def promotion(self) -> Any:
        return self.card.training["promotion"]


def result_of(run: jobs.Run) -> dict[str, Any]:
    """What comparing found. Raises ConfigError while there is none."""
    try:
        found: dict[str, Any] = json.loads((run.folder / compare.RESULT).read_text(encoding="utf-8"))
        return found
    except (OSError, ValueError) as error:
        raise ConfigError("This run has no result yet. Wait for its end, or start it again.") from error


def objections(run: jobs.Run) -> list[str]:
    """Why a model should not be promoted, a sentence each; empty where nothing speaks against it."""
    result, card = result_of(run), library.read_card(run.folder / "model")
    found = []
    auroc = result["child"]["auroc"]
    if not auroc["low"] > 0.5:
        found.append(
            f"It cannot be told from guessing: its AUROC on held-out cases is {auroc['value']:.3f}, "
            f"and may be as low as {auroc['low']:.3f}."
        )
    if result["verdict"] == compare.WORSE:
        found.append(f"It is worse than {result['parent_id']}, the model that it would replace or started from.")
    elif result.get("auroc_gain", {}).get("value", 0) < 0 and result.get("accuracy_gain", {}).get("value", 0) < 0:
        found.append(f"It does no better than {result['parent_id']}: both AUROC and accuracy are lower.")
    sane: Any = card.metrics.get("sanity", {})
    if "weights" not in sane:
        found.append("Whether its maps depend on what it learned was not tested: the settings switched that off.")
    found += [reason for method in MAIN_MAPS if method in EXPLAINERS and (reason := refusal(card, method))]
    return found


def promote(run_id: str, model_id: str, reason: str = "") -> ModelCard:
    """Put the model of a run into the library under an id, in place of what has that id. Returns its card.

    reason: why it is promoted against `objections`; kept on the card. Raises PromotionRefused where one is needed, and
    ConfigError when the run has no result or the id cannot be used.
    """
    run = jobs.find(run_id)
    against = objections(run)
    if against and len(reason.strip()) < SHORTEST_REASON:
        raise PromotionRefused(" ".join(against) + " Keep the model in use, or write down why this one is better.")
    link = link_of(model_id)
    card = library.read_card(run.folder / "model")
    result = result_of(run)
    promotion = {
        "run": run.id,
        "at": datetime.now(UTC).isoformat(timespec="milliseconds"),
        "verdict": result["verdict"],
        "replaces": next((one.card.version for one in list_versions(model_id) if one.in_use), ""),
    }
    if result.get("parent_id"):
        promotion["compared_with"] = f"{result['parent_id']} {result['parent_version']}"
    if against:
        promotion |= {"objections": against, "reason": reason.strip()}
    version = next_version(model_id)
    card = replace(card, id=model_id, version=version, training=dict(card.training) | {"promotion": promotion})
    folder = places.versions() / model_id / version
    fresh = folder.with_name(f".{version}")
    shutil.rmtree(fresh, ignore_errors=True)
    shutil.copytree(run.folder / "model", fresh)
    model = library.load(str(fresh), "cpu")
    card = library.save(fresh, card, model.network)
    (fresh / "README.md").write_text(readme(card), encoding="utf-8")
    fresh.rename(folder)
    point(link, folder)
    register(card, folder, run.id)
    return card


def roll_back(model_id: str) -> str:
    """Use what the version in use replaced: another one, or the shipped model. Returns what is in use now, in words."""
    link = link_of(model_id)
    if not link.is_symlink():
        raise ConfigError(f"{model_id} was never promoted here. There is nothing to go back to.")
    kept = list_versions(model_id)
    replaced = next((one.replaces for one in kept if one.in_use), "")
    earlier = next((one for one in kept if one.card.version == replaced), None)
    if earlier is not None:
        point(link, earlier.folder)
        unregister(model_id, earlier.card.version)
        return f"{model_id} {earlier.card.version} is in use again."
    link.unlink()
    unregister(model_id, "")
    shipped = (library.SHIPPED / model_id).is_dir()
    return f"The shipped {model_id} is in use again." if shipped else f"{model_id} is not in use any more."


def use(model_id: str, version: str) -> None:
    """Use a certain version. Raises ConfigError when there is none."""
    chosen = next((one for one in list_versions(model_id) if one.card.version == version), None)
    if chosen is None:
        raise ConfigError(f"There is no version {version} of {model_id}. Choose another one.")
    point(link_of(model_id), chosen.folder)
    unregister(model_id, version)


def list_versions(model_id: str) -> list[Version]:
    """The versions that were promoted here, the newest first."""
    used = link_of(model_id).resolve()
    folders = [path.parent for path in (places.versions() / model_id).glob(f"[!.]*/{library.CARD}")]
    found = [Version(library.read_card(folder), folder, folder.resolve() == used) for folder in folders]
    return sorted(found, key=lambda one: one.promoted, reverse=True)


def next_version(model_id: str) -> str:
    """Today's date, with a number from the second of a day on, so that no version is ever written twice."""
    today = datetime.now(UTC).strftime("%Y.%m.%d")
    taken = {path.name for path in (places.versions() / model_id).glob("*")}
    with suppress(MedFusionError):
        taken.add(library.read_card(library.find(model_id)).version)
    number = 1
    while (version := today if number == 1 else f"{today}.{number}") in taken:
        number += 1
    return version


def link_of(model_id: str) -> Path:
    """Where the library sees a promoted model. Raises ConfigError when the id cannot name a folder or is taken."""
    if not ID.fullmatch(model_id) or len(model_id) > 60:
        raise ConfigError(f"{model_id!r} cannot name a model. Use small letters, digits and single hyphens.")
    link = places.site_models() / model_id
    if link.exists() and not link.is_symlink():
        raise ConfigError(f"A model {model_id} was put into {link.parent.name} by hand. Choose another name.")
    return link


def point(link: Path, folder: Path) -> None:
    """Let the link lead to a folder, in one step."""
    link.parent.mkdir(parents=True, exist_ok=True)
    fresh = link.with_name(f".{link.name}.{os.getpid()}")
    fresh.unlink(missing_ok=True)
    fresh.symlink_to(folder, target_is_directory=True)
    fresh.replace(link)


def register(card: ModelCard, folder: Path, run_id: str) -> None:
    from training import record  # MLflow takes seconds to import, and few visits promote

    record.register(card.id, card.version, folder, run_id)


def unregister(model_id: str, version: str) -> None:
    from training import record

    record.mark_in_use(model_id, version)
