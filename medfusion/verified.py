"""What a report says of its maps, checked against maps that were made again: words, agreement and tests."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from typing import Any

from medfusion.explain import explain, record
from medfusion.explain.faithfulness import Faithfulness, faithfulness
from medfusion.explain.shortcuts import Shortcuts, shortcuts
from medfusion.explain.stability import Stability, stability
from medfusion.library import Model
from medfusion.types import Explanation, Scan

WORDS = ("fit", "samples", "has_positive_evidence", "degenerate", "in_words")
TOLERANCE = 2e-3  # figures stand with four places; the sums behind them differ in their last bits between machines


def around(told: Mapping[str, Any], model: Model, scan: Scan, made: Sequence[Explanation]) -> list[tuple[str, bool]]:
    """Each thing that a report says around its maps, with whether it holds. Tests that it does not hold are not made.

    told: as record.account makes it. Raises KeyError, TypeError or ValueError where it is none.
    """
    tests = again(told, model, scan, made)
    fresh = json.loads(json.dumps(record.account(model, made, tests)))
    found = []
    for one in made:
        said, now = told["methods"][one.method], fresh["methods"][one.method]
        found.append((f"words on {one.method}", all(alike(said[name], now[name]) for name in WORDS)))
        for name in ("faithfulness", "stability"):
            if said[name] is not None:
                found.append((f"{name} of {one.method}", alike(said[name], now[name])))
    if told["agreement"]:
        found.append(("agreement of the maps", alike(told["agreement"], fresh["agreement"])))
    if told["shortcuts"] is not None:
        found.append(("shortcuts", alike(told["shortcuts"], fresh["shortcuts"])))
    return found


def again(told: Mapping[str, Any], model: Model, scan: Scan, made: Sequence[Explanation]) -> record.Tests:
    """The tests that were made then, made once more."""
    faithful: dict[str, Faithfulness | None] = {}
    stable: dict[str, Stability] = {}
    short: dict[str, Shortcuts] = {}
    for one in made:
        said = told["methods"][one.method]
        if said["faithfulness"] is not None:
            faithful[one.method] = faithfulness(model, scan, one)
        if said["stability"] and said["stability"]["seeds"]:
            settings = dict(one.settings)
            others = [
                explain(model, scan, one.target_index, one.method, one.frame, int(seed), settings)
                for seed in said["stability"]["seeds"]
                if int(seed) != one.seed
            ]
            stable[one.method] = stability([one, *others])
        if told["shortcuts"] is not None and not short:
            short[one.method] = shortcuts(model, scan, one)
    return record.Tests(faithful, stable, short)


def alike(said: Any, now: Any) -> bool:
    """The same at any depth, numbers within the tolerance."""
    if isinstance(said, Mapping) and isinstance(now, Mapping):
        return said.keys() == now.keys() and all(alike(said[name], now[name]) for name in said)
    if isinstance(said, list) and isinstance(now, list):
        return len(said) == len(now) and all(map(alike, said, now))
    if is_number(said) and is_number(now):
        return math.isclose(said, now, abs_tol=TOLERANCE, rel_tol=TOLERANCE)
    return type(said) is type(now) and said == now


def is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
