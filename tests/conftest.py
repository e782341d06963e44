"""Holds for all tests: only the project's own models are in sight, and figures need no screen."""

import os

os.environ.pop("MEDFUSION_MODELS", None)
os.environ["MPLBACKEND"] = "Agg"
