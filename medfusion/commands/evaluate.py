"""`evaluate`: the figures of one model on a labelled zip or folder, as the cards hold them."""

from __future__ import annotations

import argparse
import json
import math
import sys
from collections.abc import Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from medfusion import conformal, evaluation_report
from medfusion.commands import predict
from medfusion.corruptions import REFERENCE_SEVERITY, SEVERITIES, robustness
from medfusion.errors import ConfigError
from medfusion.evaluate import measure, origin_of, part_of
from medfusion.evaluation_report import absent_in_words


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--model", required=True, metavar="ID", help="the model to measure, by id or folder")
    parser.add_argument("--data", required=True, type=Path, metavar="ZIP", help="zip or folder of CLASS/FILE pictures")
    parser.add_argument("--split", default="test", choices=("train", "val", "test", "all"), help="default: test")
    parser.add_argument("--json", type=Path, metavar="OUT", help="also write all figures to this file")
    parser.add_argument("--report", type=Path, metavar="DIR", help="also write report.html, figures and tables there")
    parser.add_argument(
        "--report-thumbnails", action="store_true", help="show the pictures of the worst errors in the report"
    )
    parser.add_argument(
        "--corruptions", action="store_true", help="also measure what noise, blur, crops and so on cost in AUROC"
    )
    parser.add_argument(
        "--severity",
        type=int,
        nargs="+",
        choices=SEVERITIES,
        metavar="N",
        help="only these corruptions (default: 1 to 5)",
    )
    parser.add_argument("--device", help="where to compute, such as cpu or cuda (default: the GPU where there is one)")


def run(arguments: argparse.Namespace) -> int:
    if arguments.severity and not arguments.corruptions:
        raise ConfigError("--severity says how far --corruptions go. Give --corruptions as well.")
    if arguments.report_thumbnails and not arguments.report:
        raise ConfigError("--report-thumbnails is about the report. Give --report DIR as well.")
    model = predict.load(arguments.model, arguments.device)
    bar = show_progress if sys.stderr.isatty() else None
    part = part_of(arguments.data, arguments.split)
    measured = measure(model, part, bar)
    origin = origin_of(model, part, arguments.split)
    if arguments.corruptions:
        found = robustness(model, part, sorted(set(arguments.severity or SEVERITIES)), progress=bar)
        measured = replace(measured, figures=measured.figures | {"robustness": found})
    figures = origin | measured.figures
    if arguments.report:
        try:
            page = evaluation_report.write(arguments.report, measured, origin, arguments.report_thumbnails)
            sys.stdout.write(f"{page}\n")
        except OSError as error:
            raise ConfigError(f"The report cannot be written ({error.strerror}). Choose another folder.") from error
    if arguments.json:
        try:
            arguments.json.parent.mkdir(parents=True, exist_ok=True)
            arguments.json.write_text(json.dumps(in_json(figures), indent=2) + "\n", encoding="utf-8")
        except OSError as error:
            raise ConfigError(f"The figures cannot be written ({error.strerror}). Choose another file.") from error
    sys.stdout.write("\n".join([*in_words(figures), *filter(None, [absent_in_words(measured.absent)])]) + "\n")
    return 0


def in_json(figures: Mapping[str, Any]) -> dict[str, Any]:
    """Plain numbers for scripts, with the 95 % intervals beside them, [low, high]. JSON has no NaN: null instead."""
    flat: dict[str, Any] = {}
    intervals: dict[str, list[float | None]] = {}
    for name, value in figures.items():
        if isinstance(value, dict) and "low" in value:
            flat[name] = defined(value["value"])
            intervals[name] = [defined(value["low"]), defined(value["high"])]
        else:
            flat[name] = in_json(value) if isinstance(value, dict) else defined(value)
    return flat | ({"intervals": intervals} if intervals else {})


def defined(value: Any) -> Any:
    return None if isinstance(value, float) and math.isnan(value) else value


def in_words(figures: dict) -> list[str]:
    """One line a figure, with its 95 % interval."""
    lines = [f"{figures['model']} {figures['version']} on {figures['data']}, {figures['split']}: n = {figures['n']}"]
    for name in ("accuracy", "balanced_accuracy", "auroc", "ece", "brier"):
        lines.append(f"{name:<18}{estimate(figures[name])}")
    for name, row in figures["per_class"].items():
        lines.append(f"{name}: sensitivity {estimate(row['sensitivity'])}, specificity {estimate(row['specificity'])}")
    if "prediction_sets" in figures:
        lines += sets_in_words(figures)
    if "robustness" in figures:
        lines += drops_in_words(figures["robustness"])
    return lines


def sets_in_words(figures: Mapping[str, Any]) -> list[str]:
    """What the prediction sets hold, beside what they were made to hold, by class; intervals are Wilson's."""
    sets = figures["prediction_sets"]
    return [
        f"prediction sets for {conformal.COVERAGE:.3f}: {sets['coverage']:.3f} hold the true class, mean size "
        f"{sets['mean_size']:.2f}, {sets['single']:.3f} name one class, {1 - sets['single']:.3f} abstain",
        *(
            f"{name}: coverage, Wilson interval {estimate(asdict(seen))}"
            for name, seen in conformal.covered(figures).items()
        ),
    ]


def drops_in_words(found: Mapping[str, Any]) -> list[str]:
    """A table of the AUROC lost, by corruption and severity."""
    drops = found["drops"]
    severities = list(next(iter(drops.values())))
    head = f"{'AUROC lost at severity':<24}" + "".join(f"{severity:>8}" for severity in severities)
    rows = [f"{name:<24}" + "".join(f"{drop:>8.3f}" for drop in row.values()) for name, row in drops.items()]
    if "mean_drop" not in found:
        return [head, *rows]
    mean = "not defined: a class is absent" if math.isnan(found["mean_drop"]) else f"{found['mean_drop']:.3f}"
    return [head, *rows, f"mean at severity {REFERENCE_SEVERITY}: {mean}"]


def estimate(figure: dict) -> str:
    if math.isnan(figure["value"]):
        return "not defined: a class is absent"
    return f"{figure['value']:.3f} ({figure['low']:.3f} to {figure['high']:.3f})"


def show_progress(part: float) -> None:
    sys.stderr.write(f"\r{part:4.0%}" + ("\n" if part == 1 else ""))
