"""The card of a model as a README.md, for people who meet the folder before the program."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from medfusion.explain import EXPLAINERS, refusal
from medfusion.types import ModelCard


def readme(card: ModelCard) -> str:
    """Markdown: what it is for, what it knows, where it fails, how well it does, and how it was made."""
    data: Mapping[str, Any] = card.data
    training: Mapping[str, Any] = card.training
    parts = [
        f"# {card.title}",
        f"MedFusionNet `{card.size}`, version {card.version}. **Research use only, not for clinical decisions.**",
        card.intended_use,
        f"Reads: {card.modality}. Answers: {', '.join(card.classes)}.",
        "## Limits",
        "\n".join(f"- {limit}" for limit in card.limits),
        "## Results",
        results(card),
        f"Operating point: {card.operating_point.rule}" if card.role == "diagnosis" else "",
        calibration(card),
        seeds(card),
        robustness(card.metrics.get("robustness")),
        sanity(card),
        "## Data",
        f"{data.get('source', data.get('file', ''))}. Licence: {data.get('licence', 'not stated')}.",
        str(data.get("citation", "")),
        splits(data.get("splits", {})),
        "## Made with",
        f"```\n{training.get('command', '')}\n```",
        str(training.get("note", "")),
        f"Licence of the weights: {card.license or 'not stated'}",
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def results(card: ModelCard) -> str:
    """A table of the measured splits, with 95 % intervals from a bootstrap over patients."""
    by_set: Any = card.metrics.get("val_by_set")
    if by_set:
        head = ["set", "val n", "accuracy", "AUROC", "known to be of this set"]
        body = [
            [name, str(row["n"]), *(f"{row[key]:.3f}" for key in ("accuracy", "auroc", "told_apart"))]
            for name, row in by_set.items()
        ]
        return "\n".join(f"| {' | '.join(row)} |" for row in (head, ["---"] * len(head), *body))
    measured: dict[str, Any] = {split: card.metrics[split] for split in ("val", "test") if split in card.metrics}
    if not measured:
        return "Not measured."
    rows = [
        ["", *(f"{split} (n = {figures['n']})" for split, figures in measured.items())],
        ["---"] * (len(measured) + 1),
    ]
    for name in ("accuracy", "balanced_accuracy", "auroc", "ece", "brier"):
        rows.append([name.replace("_", " "), *(estimate(figures[name]) for figures in measured.values())])
    for k in card.classes:
        for what in ("sensitivity", "specificity"):
            rows.append([f"{k}: {what}", *(estimate(figures["per_class"][k][what]) for figures in measured.values())])
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


def estimate(figure: Mapping[str, float]) -> str:
    return f"{figure['value']:.3f} ({figure['low']:.3f} to {figure['high']:.3f})"


def seeds(card: ModelCard) -> str:
    """What each network of the average does alone: how far figures of the recipe vary by chance."""
    found: Any = card.metrics.get("seeds")
    if not isinstance(found, Mapping):
        return ""
    used = ", ".join(map(str, card.training.get("averaged_seeds", ())))  # type: ignore[call-overload]
    lines = [f"The shipped weights are the average of seeds {used}. Each alone, by its most probable class:"]
    for split in next(iter(found.values())):
        each = "; ".join(
            f"seed {seed} {row[split]['accuracy']:.3f} / {row[split]['auroc']:.3f}" for seed, row in found.items()
        )
        lines.append(f"- {split}, accuracy / AUROC: {each}.")
    return "\n".join(lines)


def calibration(card: ModelCard) -> str:
    """Temperature, its effect on val, and how well the prediction sets keep their promise."""
    val, before = card.metrics.get("val"), card.metrics.get("val_ece_before_temperature")
    lines = []
    if isinstance(val, Mapping) and isinstance(before, float):
        after = val["ece"]["value"]
        lines.append(
            f"Temperature {card.temperature:.2f}: calibration error on val {before:.3f} before, {after:.3f} after."
        )
    crossed: Any = card.metrics.get("cross_validation")
    if crossed:
        mean, spread = crossed["mean"], crossed["spread"]
        lines.append(
            f"Cross-validation: {len(crossed['folds']['auroc'])} folds, {crossed['pooled']['n']} cases, each answered "
            f"by a network that never saw it: AUROC {mean['auroc']:.3f} ± {spread['auroc']:.3f}, accuracy "
            f"{mean['accuracy']:.3f} ± {spread['accuracy']:.3f}. Temperature and operating point rest on these answers."
        )
    for split in ("val", "test"):
        figures: Any = card.metrics.get(split)
        if isinstance(figures, Mapping) and "prediction_sets" in figures:
            sets = figures["prediction_sets"]
            lines.append(
                f"Prediction sets for 90 %, on {split}: {sets['coverage']:.1%} hold the right class, "
                f"{sets['single']:.1%} name one class only."
            )
    return "\n".join(f"- {line}" for line in lines)


def robustness(found: Any) -> str:
    """AUROC lost on val under each corruption of severity 3."""
    if not isinstance(found, Mapping):
        return ""
    drops = ", ".join(f"{name} {row['3']:.3f}" for name, row in found["drops"].items())
    return f"AUROC lost on val when pictures are worse (severity 3 of 5): {found['mean_drop']:.3f} on average; {drops}."


def sanity(card: ModelCard) -> str:
    """Whether maps depend on what was learned, and the methods that are refused because they do not."""
    found: Any = card.metrics.get("sanity")
    if not isinstance(found, Mapping) or "weights" not in found:
        return ""
    alike = ", ".join(
        f"{EXPLAINERS[name].title} {list(row.values())[-1]:.2f}" for name, row in found["weights"].items()
    )
    lines = [f"- Likeness of maps (rank correlation, {found['scans']} scans) once all weights are randomised: {alike}."]
    if "labels" in found:
        alike = ", ".join(f"{EXPLAINERS[name].title} {value:.2f}" for name, value in found["labels"].items())
        lines.append(f"- With a network that was trained on shuffled labels: {alike}.")
    lines += [f"- {reason}" for name in found["weights"] if (reason := refusal(card, name))]
    return "\n".join(lines)


def splits(counts: Mapping[str, Mapping[str, int]]) -> str:
    lines = [f"- {split}: " + ", ".join(f"{n} {name}" for name, n in row.items()) for split, row in counts.items()]
    return "\n".join(lines)
