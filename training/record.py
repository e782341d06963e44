"""Runs and model versions in MLflow: a SQLite file of this installation, or the server that MLFLOW_TRACKING_URI names.

Settings, curves and versions are recorded; no picture, no file name, no patient.
"""

from __future__ import annotations

import os
from dataclasses import asdict
from pathlib import Path

os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")  # nothing leaves the machine

from lightning.pytorch.loggers import MLFlowLogger
from mlflow import MlflowClient
from mlflow.exceptions import MlflowException

from medfusion import places
from training.plan import Plan

EXPERIMENT = "medfusion"
IN_USE = "in-use"  # the alias of the version that the library serves


def address() -> str:
    return os.environ.get("MLFLOW_TRACKING_URI") or f"sqlite:///{places.home() / 'mlflow.db'}"


def logger(run_id: str, plan: Plan) -> MLFlowLogger:
    """Records the curves of a run under its id; a resumed run goes on in its own record."""
    places.make_home()
    made = MLFlowLogger(EXPERIMENT, run_id, address(), run_id=known_run(run_id))
    if known_run(run_id) is None:
        made.log_hyperparams(asdict(plan.settings) | {"model_id": plan.model_id})
    return made


def known_run(run_id: str) -> str | None:
    """MLflow's own id of a run."""
    client = MlflowClient(address())
    experiment = client.get_experiment_by_name(EXPERIMENT)
    if experiment is None:
        return None
    found = client.search_runs([experiment.experiment_id], f"tags.mlflow.runName = '{run_id}'", max_results=1)
    return found[0].info.run_id if found else None


def register(model_id: str, version: str, folder: Path, run_id: str) -> None:
    """Enter a promoted version in the registry, as the one in use."""
    client = MlflowClient(address())
    try:
        client.create_registered_model(model_id)
    except MlflowException as error:
        if error.error_code != "RESOURCE_ALREADY_EXISTS":
            raise
    entered = client.create_model_version(model_id, str(folder), known_run(run_id), tags={"version": version})
    client.set_registered_model_alias(model_id, IN_USE, entered.version)


def mark_in_use(model_id: str, version: str) -> None:
    """Move the alias to a version that was in use before, or take it away when none is left."""
    client = MlflowClient(address())
    for entered in client.search_model_versions(f"name = '{model_id}'"):
        if entered.tags.get("version") == version:
            client.set_registered_model_alias(model_id, IN_USE, entered.version)
            return
    if client.search_registered_models(f"name = '{model_id}'"):  # it may be known to another server only
        client.delete_registered_model_alias(model_id, IN_USE)
