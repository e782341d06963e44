"""Serve the app with a LIME of few samples, so that a journey in the browser takes seconds: serve.py PORT [whole].

whole: with all samples, for pictures of the guide.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass, replace
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

from streamlit.web import cli  # noqa: E402

from medfusion.explain import EXPLAINERS, faithfulness  # noqa: E402
from medfusion.explain.lime import LimeSettings  # noqa: E402


@dataclass(frozen=True)
class FewSamples(LimeSettings):
    samples: int = 16
    superpixels: int = 12


if __name__ == "__main__":
    if "whole" not in sys.argv:
        EXPLAINERS["lime"] = replace(EXPLAINERS["lime"], settings=FewSamples)
        faithfulness.RANDOM_MAPS = 2
    options = ["--server.headless=true", "--server.address=127.0.0.1", f"--server.port={sys.argv[1]}"]
    cli.main(["run", str(ROOT / "app.py"), *options])
