"""From a finished run to the model in use, in one step, and back again.

Every version lies in a folder of its own, MODEL/VERSION; the library sees a link to one of them. Moving the link is the
transaction: a reader sees the old model or the new one, never half of each.
"""

from __future__ import annotations

import json
import os
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from medfusion import access, library, places
from medfusion.errors import ConfigError, MedFusionError, ModelDamaged, ModelNotFound
from medfusion.explain import EXPLAINERS, refusal
from medfusion.records import audit
from medfusion.records.database import session
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


def objections(run: jobs.Run, model_id: str = "") -> list[str]:
    """Why a model should not be promoted, a sentence each; empty where nothing speaks against it.

    model_id: under which it would be promoted, if that is known.
    """
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
    if result.get("split") == "val":
        found.append("It was measured on the cases that it was chosen by, since none were held out as test.")
    found += not_compared(result, model_id)
    sane: Any = card.metrics.get("sanity", {})
    if "weights" not in sane:
        found.append("Whether its maps depend on what it learned was not tested: the settings switched that off.")
    found += [reason for method in MAIN_MAPS if method in EXPLAINERS and (reason := refusal(card, method))]
    return found


def not_compared(result: dict[str, Any], model_id: str) -> list[str]:
    """Whether a model would take the place of one that it was not compared with."""
    try:
        used = library.read_card(library.find(model_id))
    except (ModelNotFound, ModelDamaged):  # nothing is replaced
        return []
    if result.get("parent_id") != model_id:
        return [f"It was not compared with {model_id}, the model that it would replace."]
    if result["parent_version"] != used.version:
        return [
            f"It was compared with {model_id} {result['parent_version']}, and {used.version} is in use by now: whether "
            "it is better than that is not known. Start a run from that one to know."
        ]
    return []


def promote(run_id: str, model_id: str, reason: str = "") -> ModelCard:
    """Put the model of a run into the library under an id, in place of what has that id. Returns its card.

    reason: why it is promoted against `objections`; kept on the card. Raises PromotionRefused where one is needed, and
    ConfigError when the run has no result or the id cannot be used.
    """
    run = jobs.find(run_id)
    against = objections(run, model_id)
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
    with all_or_nothing(link, model_id, str(promotion["replaces"])):
        point(link, folder)
        register(card, folder, run.id)
        told = {name: promotion[name] for name in ("run", "verdict", "replaces", "reason") if promotion.get(name)}
        note("model promoted", model_id, version=version, **told)
    return card


def roll_back(model_id: str) -> str:
    """Use what the version in use replaced: another one, or the shipped model. Returns what is in use now, in words."""
    link = link_of(model_id)
    if not link.is_symlink():
        raise ConfigError(f"{model_id} was never promoted here. There is nothing to go back to.")
    kept = list_versions(model_id)
    replaced = next((one.replaces for one in kept if one.in_use), "")
    earlier = next((one for one in kept if one.card.version == replaced), None)
    given_up = next((one.card.version for one in kept if one.in_use), "")
    with all_or_nothing(link, model_id, given_up):
        if earlier is not None:
            point(link, earlier.folder)
        else:
            link.unlink()
        unregister(model_id, earlier.card.version if earlier else "")
        note("model rolled back", model_id, version=given_up)
    if earlier is not None:
        return f"{model_id} {earlier.card.version} is in use again."
    shipped = (library.SHIPPED / model_id).is_dir()
    return f"The shipped {model_id} is in use again." if shipped else f"{model_id} is not in use any more."


def use(model_id: str, version: str) -> None:
    """Use a certain version. Raises ConfigError when there is none."""
    chosen = next((one for one in list_versions(model_id) if one.card.version == version), None)
    if chosen is None:
        raise ConfigError(f"There is no version {version} of {model_id}. Choose another one.")
    used = next((one.card.version for one in list_versions(model_id) if one.in_use), "")
    with all_or_nothing(link_of(model_id), model_id, used):
        point(link_of(model_id), chosen.folder)
        unregister(model_id, version)
        note("model version chosen", model_id, version=version)


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


@contextmanager
def all_or_nothing(link: Path, model_id: str, version: str) -> Iterator[None]:
    """Where link, registry and audit log cannot all be brought to the new state, all stay in the old one.

    version: that was in use before.
    """
    before = link.readlink() if link.is_symlink() else None
    try:
        yield
    except BaseException:
        if before is not None:
            point(link, before)
        else:
            link.unlink(missing_ok=True)
        with suppress(MedFusionError):
            unregister(model_id, version)
        raise


def note(action: str, model_id: str, **told: object) -> None:
    """In the audit log."""
    with session(writes=True) as opened:
        audit.add(opened, access.current().name, action, f"model {model_id}", **told)


def register(card: ModelCard, folder: Path, run_id: str) -> None:
    with reached():
        from training import record  # MLflow takes seconds to import, and few visits promote

        record.register(card.id, card.version, folder, run_id)


def unregister(model_id: str, version: str) -> None:
    with reached():
        from training import record

        record.mark_in_use(model_id, version)


@contextmanager
def reached() -> Iterator[None]:
    """What MLflow and its database raise, which is of many kinds, in one sentence."""
    try:
        yield
    except Exception as error:
        raise ConfigError(
            f"The registry of models cannot be written ({type(error).__name__}), so nothing was changed. Check the "
            "disk, or the server that MLFLOW_TRACKING_URI names, and try again."
        ) from error
