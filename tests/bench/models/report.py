"""Tables and plots of the results, for the README: `python -m tests.bench.models.report`."""

from __future__ import annotations

import csv
import math
import statistics
import sys
from collections.abc import Callable, Iterator, Mapping
from itertools import groupby
from pathlib import Path

import matplotlib as mpl
from matplotlib.figure import Figure

RESULTS = Path(__file__).parent / "results"
COLOURS = ("#2f86bd", "#d9822b", "#4c9f70", "#9a6fb0", "#b5544f", "#7d7d7d", "#c2a02e", "#3f5f8a")
BUDGET = ("drawn", "side_px")
TICKS_GMACS = (0.3, 0.5, 1, 2, 4)
COSTS = ("parameters_m", "gmacs", "latency_ms", "kept_mb")

Row = Mapping[str, str]


def write(folder: Path) -> None:
    """Draw what there are results of, and write tables.md."""
    found = {path.stem: rows_of(path) for path in sorted(folder.glob("*.csv"))}
    parts = [
        TABLES[name](same, found)
        for name, rows in found.items()
        if name in TABLES
        for _, same in grouped(rows, *BUDGET)  # what was trained longer is not averaged with what was not
    ]
    (folder / "tables.md").write_text("\n\n".join(parts) + "\n", encoding="utf-8")
    if "learning_curves" in found:
        draw_curves(latest(found["learning_curves"]), folder / "learning_curves.svg")
    if "rivals" in found and "networks" in found:
        draw_rivals(latest(found["rivals"]), found["networks"], folder / "rivals.svg")


def rows_of(table: Path) -> list[Row]:
    with table.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def grouped(rows: list[Row], *columns: str) -> Iterator[tuple[tuple[str, ...], list[Row]]]:
    """Rows that agree in the columns, in the order in which these first appear."""

    def key(row: Row) -> tuple[str, ...]:
        return tuple(row[column] for column in columns)

    first = {key(row): index for index, row in reversed(list(enumerate(rows)))}
    for name, members in groupby(sorted(rows, key=lambda row: first[key(row)]), key):
        yield name, list(members)


def latest(rows: list[Row]) -> list[Row]:
    """Those of the budget that came last."""
    *_, (_, last) = grouped(rows, *BUDGET)
    return last


def values_of(rows: list[Row], figure: str) -> list[float]:
    return [float(row[figure]) for row in rows]


def mean(rows: list[Row], figure: str) -> float:
    return statistics.fmean(values_of(rows, figure))


def said(rows: list[Row], figure: str) -> str:
    """Mean over seeds and, of several, the range."""
    values = values_of(rows, figure)
    return f"{mean(rows, figure):.3f}" + (f" ({min(values):.3f} to {max(values):.3f})" if len(values) > 1 else "")


def markdown(head: list[str], body: list[list[str]]) -> str:
    return "\n".join(f"| {' | '.join(row)} |" for row in (head, ["---"] * len(head), *body))


def budget(rows: list[Row]) -> str:
    seeds = len({row["seed"] for row in rows})
    named = " or ".join(sorted({row["drawn"] for row in rows}, key=int))
    sides = " or ".join(sorted({row["side_px"] for row in rows}, key=int))
    return f"{named} training pictures drawn at {sides} px, {seeds} {'seed' if seeds == 1 else 'seeds'}, on test"


def curves_table(rows: list[Row], _: Mapping[str, list[Row]]) -> str:
    shares = [name[0] for name, _ in grouped(sorted(rows, key=lambda row: float(row["share"])), "share")]
    body = []
    for (data,), same in grouped(rows, "data"):
        for (network, start), members in grouped(same, "network", "start"):
            by_share = {row[0]: group for row, group in grouped(members, "share")}
            cells = [said(by_share[share], "test_auroc") if share in by_share else "" for share in shares]
            body.append([data.replace("_", " "), f"{network}, {start}", *cells])
    head = ["set", "network, start", *(f"{float(share):.0%} of train" for share in shares)]
    return f"AUROC by the share of the training set ({budget(rows)}):\n\n{markdown(head, body)}\n\n{pairs_table(rows)}"


def pairs_table(rows: list[Row], against: str = "imagenet") -> str:
    """Each start against one of them, run by run: of the same set, network, share and seed."""
    alike = ("data", "network", "share", "seed")
    others = dict(grouped([row for row in rows if row["start"] == against], *alike))
    body = []
    for names, members in grouped([row for row in rows if row["start"] != against], "data", "network", "start"):
        pairs = [(row, others[run][0]) for run, (row,) in grouped(members, *alike) if run in others]
        if len(pairs) > 1:
            data, network, start = names
            gains = [gain(pairs, figure) for figure in ("val_auroc", "test_auroc")]
            body.append([data.replace("_", " "), f"{network}, {start}", *gains])
    head = ["set", "network, start", "val", "test"]
    told = "mean over pairs of runs of one share and seed, its standard error, and how many are ahead"
    return f"AUROC above that from {against} ({told}):\n\n{markdown(head, body)}"


def gain(pairs: list[tuple[Row, Row]], figure: str) -> str:
    """Mean difference of pairs, its standard error, and how many are above 0."""
    gains = [float(row[figure]) - float(other[figure]) for row, other in pairs]
    error = statistics.stdev(gains) / math.sqrt(len(gains))
    return f"{statistics.fmean(gains):+.3f} ± {error:.3f} ({sum(gain > 0 for gain in gains)} of {len(gains)})"


def rivals_table(rows: list[Row], found: Mapping[str, list[Row]]) -> str:
    parts = []
    cost = {row["network"]: row for row in found.get("networks", [])}
    for (data, rarity), members in grouped(rows, "data", "rarity"):
        body = [
            [f"{network}, {start}"]
            + [said(group, figure) for figure in ("test_accuracy", "test_balanced_accuracy", "test_auroc")]
            + [f"{float(cost[network][name]):.3g}" if network in cost else "" for name in COSTS]
            + [f"{mean(group, 'processor_s'):.0f}"]
            for (network, start), group in grouped(members, "network", "start")
        ]
        head = ["network, start", "accuracy", "balanced accuracy", "AUROC", "parameters (M)", "GMACs"]
        head += ["latency (ms)", "training memory (MB a picture)", "training (processor s)"]
        thin = f", thinned to 1:{rarity}" if rarity != "0" else ""
        parts.append(f"{data.replace('_', ' ')}{thin} ({budget(members)}):\n\n{markdown(head, body)}")
    return "\n\n".join(parts)


def imbalance_table(rows: list[Row], _: Mapping[str, list[Row]]) -> str:
    figures = ["val_balanced_accuracy", "val_auroc", "test_balanced_accuracy", "test_auroc"]
    body = [[name, *(said(group, figure) for figure in figures)] for (name,), group in grouped(rows, "balance")]
    head = ["balance", *(figure.replace("_", " ").replace("auroc", "AUROC") for figure in figures)]
    return f"Remedies for imbalance, chest X-rays thinned to 1:10 ({budget(rows)}):\n\n{markdown(head, body)}"


TABLES: Mapping[str, Callable[[list[Row], Mapping[str, list[Row]]], str]] = {
    "learning_curves": curves_table,
    "rivals": rivals_table,
    "imbalance": imbalance_table,
}


def draw_curves(rows: list[Row], path: Path) -> None:
    """AUROC by training cases, one panel a set; bands from the lowest to the highest seed."""
    sets = list(grouped(rows, "data"))
    figure = Figure(figsize=(3.6 * len(sets), 3.2), layout="constrained")
    for axes, ((data,), members) in zip(figure.subplots(1, len(sets), squeeze=False)[0], sets, strict=True):
        for colour, ((network, start), group) in zip(COLOURS, grouped(members, "network", "start"), strict=False):
            points = sorted((mean(part, "cases"), values_of(part, "test_auroc")) for _, part in grouped(group, "share"))
            cases = [point[0] for point in points]
            axes.plot(cases, [statistics.fmean(v) for _, v in points], "o-", color=colour, label=f"{network}, {start}")
            axes.fill_between(
                cases, [min(v) for _, v in points], [max(v) for _, v in points], color=colour, alpha=0.15, linewidth=0
            )
        axes.set(xscale="log", xlabel="Training cases", ylabel="AUROC on test", title=data.replace("_", " "))
        axes.minorticks_off()
        axes.set_xticks(cases, [f"{n:.0f}" for n in cases])
    figure.legend(*axes.get_legend_handles_labels(), loc="outside lower center", ncols=2, frameon=False, fontsize=8)
    save(figure, path)


def draw_rivals(rows: list[Row], costs: list[Row], path: Path) -> None:
    """AUROC from scratch against multiply-adds, one panel a set; bars from the lowest to the highest seed."""
    gmacs = {row["network"]: float(row["gmacs"]) for row in costs}
    sets = list(grouped([row for row in rows if row["start"] == "scratch" and row["network"] in gmacs], "data"))
    figure = Figure(figsize=(3 * len(sets), 3.4), layout="constrained")
    panels = figure.subplots(1, len(sets), squeeze=False, sharey=True)[0]
    for axes, ((data,), members) in zip(panels, sets, strict=True):
        for colour, ((network,), group) in zip(COLOURS, grouped(members, "network"), strict=False):
            values, middle = values_of(group, "test_auroc"), mean(group, "test_auroc")
            spread = [[middle - min(values)], [max(values) - middle]]
            axes.errorbar(gmacs[network], middle, spread, fmt="o", color=colour, capsize=2, label=network)
        axes.set(xscale="log", xlabel="GMACs at 224 px", title=data.replace("_", " "))
        axes.minorticks_off()
        axes.set_xticks(TICKS_GMACS, [f"{tick:g}" for tick in TICKS_GMACS])
    panels[0].set_ylabel("AUROC on test, from scratch")
    figure.legend(*axes.get_legend_handles_labels(), loc="outside lower center", ncols=4, frameon=False, fontsize=8)
    save(figure, path)


def save(figure: Figure, path: Path) -> None:
    with mpl.rc_context({"svg.hashsalt": "medfusion"}):
        figure.savefig(path, format="svg", metadata={"Date": None})


if __name__ == "__main__":
    write(Path(sys.argv[1]) if len(sys.argv) > 1 else RESULTS)
