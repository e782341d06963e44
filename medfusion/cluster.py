"""The Ray cluster that RAY_ADDRESS names, if it names one. Nothing here is loaded where it does not."""

from __future__ import annotations

import logging
import os
from typing import Any

from medfusion import places
from medfusion.errors import ConfigError

NOT_SENT = [".git", ".venv", ".data", "runs", "tests", "**/__pycache__"]
PASSED_ON = ("MEDFUSION_", "MLFLOW_")  # settings of this installation, by the beginning of their names


def is_wanted() -> bool:
    return bool(os.environ.get("RAY_ADDRESS"))


def connect() -> None:
    """Raises ConfigError where it is not installed or does not answer."""
    try:
        import ray
    except ImportError as error:
        raise ConfigError(
            "RAY_ADDRESS is set, and Ray is not installed. Run `pip install -r requirements-cluster.txt`, or unset it."
        ) from error
    if not ray.is_initialized():
        inside = "RAY_JOB_CONFIG_JSON_ENV_VAR" in os.environ  # a job of the cluster has its environment already
        try:
            ray.init(runtime_env=None if inside else environment(), logging_level=logging.ERROR)
        except (ConnectionError, RuntimeError, ValueError) as error:
            raise ConfigError(f"No Ray cluster answers at RAY_ADDRESS ({error}). Start it, or unset it.") from error


def environment() -> dict[str, Any]:
    """What each machine runs with: this code, and the settings of this installation."""
    settings = {name: value for name, value in os.environ.items() if name.startswith(PASSED_ON)}
    settings["MEDFUSION_HOME"] = str(places.home())
    return {"working_dir": str(places.PROJECT), "excludes": NOT_SENT, "env_vars": settings}
