"""The card of a model as a README.md, for people who meet the folder before the program."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from typing import Any

from medfusion.conformal import COVERAGE, covered, covered_in_all
from medfusion.explain import EXPLAINERS, refusal
from medfusion.metrics import Estimate
from medfusion.types import ModelCard

ALL = "all classes"
SETS = (
    f"Prediction sets are made to hold the right class in {100 * COVERAGE:.0f} % of the cases of each class: "
    "class-conditional LAC (Sadinle, Lei & Wasserman 2019), each class calibrated on its own cases (Mondrian, Vovk "
    "2012). How often they do, with 95 % Wilson intervals, as if each picture were of another patient:"
)
IN_SAMPLE = "The column of val is in-sample: the thresholds were fitted on these very cases."
IN_CROSS_VALIDATION = (
    "The thresholds were fitted on the answers of cross-validation, each by a network that had not seen the case; the "
    "cases of val are among them."
)
ECE_NOTE = (
    "Intervals of the calibration error (ece) come from resamples, which add to it: they lie too high, and may "
    "leave the figure out."
)


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
        "\n".join(f"- {limit}" for limit in (*card.limits, *unkept(card))),
        "## Results",
        results(card),
        f"Operating point: {card.operating_point.rule}" if card.role == "diagnosis" else "",
        calibration(card),
        sets(card),
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
        weights(card),
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
        return table(head, body)
    measured = splits_of(card)
    if not measured:
        return "Not measured."
    rows = []
    for name in ("accuracy", "balanced_accuracy", "auroc", "ece", "brier"):
        rows.append([name.replace("_", " "), *(estimate(figures[name]) for figures in measured.values())])
    for k in card.classes:
        for what in ("sensitivity", "specificity"):
            rows.append([f"{k}: {what}", *(estimate(figures["per_class"][k][what]) for figures in measured.values())])
    head = ["", *(f"{split} (n = {figures['n']})" for split, figures in measured.items())]
    elsewhere = card.data.get("calibrated_on")
    where = f"Calibrated and measured on {elsewhere}, which is not what it was trained on:" if elsewhere else ""
    return "\n\n".join(part for part in (where, table(head, rows), ECE_NOTE) if part)


def splits_of(card: ModelCard) -> dict[str, Any]:
    """The figures of val and test, of those that were measured."""
    return {split: card.metrics[split] for split in ("val", "test") if isinstance(card.metrics.get(split), Mapping)}


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    return "\n".join(f"| {' | '.join(row)} |" for row in (head, ["---"] * len(head), *rows))


def unkept(card: ModelCard) -> Iterator[str]:
    """Where classes are found less often than the operating point was chosen for, in sentences."""
    promised = card.operating_point.sensitivity
    kind = "cross-validation" if "cross_validation" in card.metrics else "validation"
    for name in card.classes[1:] if card.task == "binary" else card.classes:
        found = {split: figures["per_class"][name]["sensitivity"] for split, figures in splits_of(card).items()}
        missed = [f"{estimate(s)} on {split}" for split, s in found.items() if s["value"] < promised]
        if missed:
            yield (
                f"The operating point was chosen to find at least {100 * promised:.0f} % of {name} among {kind} "
                f"cases. With the weights as saved it finds {' and '.join(missed)}."
            )


def estimate(figure: Mapping[str, float]) -> str:
    return f"{figure['value']:.3f} ({figure['low']:.3f} to {figure['high']:.3f})"


def seeds(card: ModelCard) -> str:
    """What each network of the average does alone: how far figures of the recipe vary by chance."""
    found: Any = card.metrics.get("seeds")
    if not isinstance(found, Mapping):
        return ""
    lines = ["Each seed's network alone, by its most probable class:"]
    for split in next(iter(found.values())):
        each = "; ".join(
            f"seed {seed} {row[split]['accuracy']:.3f} / {row[split]['auroc']:.3f}" for seed, row in found.items()
        )
        lines.append(f"- {split}, accuracy / AUROC: {each}.")
    return "\n".join(lines)


def calibration(card: ModelCard) -> str:
    """Temperature and its effect. What the error was before it is not known of all cards."""
    crossed: Any = card.metrics.get("cross_validation")
    effects = []
    for split, figures in splits_of(card).items():
        before = card.metrics.get(f"{split}_ece_before_temperature")
        after = f"{figures['ece']['value']:.3f} after"
        known = f"{before:.3f} before, {after}" if isinstance(before, float) else f"{after}, not measured before"
        effects.append(f"on {split} {known}")
    lines = []
    if effects:
        where = "the answers of cross-validation" if crossed else "val"
        lines.append(f"Temperature {card.temperature:.2f}, fitted on {where}: calibration error {'; '.join(effects)}.")
    if card.class_offsets:
        each = ", ".join(f"{name} {by:+.2f}" for name, by in zip(card.classes, card.class_offsets, strict=True))
        lines.append(
            f"Offsets of the classes (Alexandari 2020), fitted with it, part of the weights: {each} before scaling."
        )
    if crossed:
        mean, spread = crossed["mean"], crossed["spread"]
        lines.append(
            f"Cross-validation: {len(crossed['folds']['auroc'])} folds, {crossed['pooled']['n']} cases, each answered "
            f"by a network that never saw it: AUROC {mean['auroc']:.3f} ± {spread['auroc']:.3f}, accuracy "
            f"{mean['accuracy']:.3f} ± {spread['accuracy']:.3f}. Temperature and operating point rest on these answers."
        )
    return "\n".join(f"- {line}" for line in lines)


def sets(card: ModelCard) -> str:
    """How well prediction sets keep their promise, class by class, and where they do not."""
    found = {split: figures for split, figures in splits_of(card).items() if "prediction_sets" in figures}
    if not found:
        return ""
    seen = {split: covered(figures) | {ALL: covered_in_all(figures)} for split, figures in found.items()}
    rows = [
        [name, f"{COVERAGE:.3f}", *(coverage(split, row.get(name)) for split, row in seen.items())]
        for name in (*card.classes, ALL)
    ]
    single = " and ".join(f"{fig['prediction_sets']['single']:.3f} of {split}" for split, fig in found.items())
    said = [f"Exactly one class is left in {single}; in the other cases the model abstains."]
    if "val" in found:
        said.append(IN_CROSS_VALIDATION if card.metrics.get("cross_validation") else IN_SAMPLE)
    if short := [name for name, share in seen.get("test", {}).items() if share.high < COVERAGE]:
        said.append(f"On test these fall short of the promise by more than their interval allows: {', '.join(short)}.")
    return "\n\n".join((SETS, table(["right class in the set", "promised", *seen], rows), " ".join(said)))


def coverage(split: str, share: Estimate | None) -> str:
    """In words; on val, where sets were fitted, chance is not what an interval would tell."""
    if share is None:
        return "no cases"
    return f"{share.value:.3f}" if split == "val" else estimate(asdict(share))


def robustness(found: Any) -> str:
    """AUROC lost on val under each corruption, at all severities that were measured."""
    if not isinstance(found, Mapping) or not found.get("drops"):
        return ""
    drops: Mapping[str, Mapping[str, float]] = found["drops"]
    rows = [[name, *map(drop, row.values())] for name, row in drops.items()]
    head = ["", *(f"severity {severity}" for severity in next(iter(drops.values())))]
    said = (
        f"AUROC lost on val when pictures are worse: {drop(found['mean_drop'])} on average at severity 3 of 5, which a "
        "reader notices and still reads. Levels are our own, and milder than those of ImageNet-C (Hendrycks & "
        "Dietterich 2019) for each change that it has, too."
    )
    return f"{said}\n\n{table(head, rows)}"


def drop(value: float) -> str:
    return f"{round(value, 3) + 0:.3f}"  # no -0.000


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


def weights(card: ModelCard) -> str:
    """What the weights are averages of."""
    training: Mapping[str, Any] = card.training
    config, share = training.get("config", {}), training.get("share_of_training")
    seeds = [str(seed) for seed in training.get("averaged_seeds", ())]
    lines = []
    if len(seeds) > 1:
        lines.append(f"What training learned is the average of seeds {', '.join(seeds)} (model soups, Wortsman 2022).")
    elif seeds and config.get("seeds", 1) > 1:
        lines.append(f"Of {config['seeds']} seeds, {seeds[0]} is kept alone: averages with others were worse on val.")
    if share == 1:
        lines.append("Nothing of the start is mixed in (`share_of_training` 1).")
    elif share is not None:
        lines.append(
            f"The weights are an average, chosen on val, of what the last training learned ({100 * share:.0f} %) and "
            f"of its start ({100 - 100 * share:.0f} %): `share_of_training` {share:g}, WiSE-FT (Wortsman 2022)."
        )
    return " ".join(lines)


def splits(counts: Mapping[str, Mapping[str, int]]) -> str:
    lines = [f"- {split}: " + ", ".join(f"{n} {name}" for name, n in row.items()) for split, row in counts.items()]
    return "\n".join(lines)
