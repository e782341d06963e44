"""All runs: what became of them, side by side, and away with them."""

from __future__ import annotations

import plotly.graph_objects as go
import streamlit as st

from medfusion.errors import MedFusionError
from pages.ui import state
from pages.ui.messages import explained_errors, plain
from pages.ui.tuning import steps
from pages.ui.tuning.training import STATUS, by_epoch
from training import service
from training.service import Run

COLOURS = ("#3b8fc4", "#c47a2c", "#4a9a62", "#a35fb0", "#8a8f94", "#b84a4a")
DASHES = ("solid", "dash", "dot")


def show_runs() -> None:
    known = service.list_runs()
    if not known:
        st.caption("Runs stand here once there are some.")
        return
    st.subheader("Runs", anchor=False)
    names = {key: name for key, (name, _) in STATUS.items() if any(run.status == key for run in known)}
    wanted = st.pills("Show", list(names), selection_mode="multi", format_func=names.__getitem__, key="runs-filter")
    shown = [run for run in known if not wanted or run.status in wanted]
    st.dataframe(table(shown), hide_index=True, key="runs-table", alt="All runs")
    by_id = {run.id: run for run in shown}
    chosen = st.multiselect(
        "Open, compare or delete", list(by_id), format_func=lambda id: name_in_list(by_id[id]), key="runs-chosen",
        placeholder="Choose a run, or several to see them side by side",
    )  # fmt: skip
    rows = [by_id[id] for id in chosen if id in by_id]
    if not rows:
        return
    with st.container(horizontal=True):
        if len(rows) == 1:
            st.button("Open", on_click=open_run, args=(rows[0],), type="primary", key="runs-open")
        with st.popover("Delete", icon=":material/delete:", key="runs-delete"):
            going = " A run that is going on is ended." if any(run.is_active for run in rows) else ""
            st.markdown(f"Curves, checkpoints and result go. Promoted models stay.{going}")
            if st.button("Delete now", type="primary", key="runs-delete-now"):
                with explained_errors():
                    for run in rows:
                        service.delete(run.id)
                    st.rerun()
    if len(rows) > 1:
        compare(rows)


def compare(runs: list[Run]) -> None:
    """Figures, the settings in which they differ, and their curves in one figure."""
    st.table(side_by_side(runs))
    drawn = overlaid(runs)
    if drawn.data:
        st.caption("AUROC on validation by epoch. Runs on other sets are not to be compared by it.")
        st.plotly_chart(drawn, key="runs-curves", config={"displayModeBar": False}, alt="AUROC of each run by epoch")


def overlaid(runs: list[Run]) -> go.Figure:
    figure = go.Figure()
    for number, run in enumerate(runs):
        done = service.epochs(service.read_events(run.folder))
        if done:
            figure.add_scatter(
                x=[epoch["epoch"] + 1 for epoch in done], y=[epoch.get("val_auroc") for epoch in done],
                name=name_of(number, run), mode="lines+markers", marker={"size": 5},
                line={"width": 2, "color": COLOURS[number % len(COLOURS)], "dash": DASHES[number // len(COLOURS) % 3]},
            )  # fmt: skip
    return by_epoch(figure, max((len(line.x) for line in figure.data), default=1))


def name_of(number: int, run: Run) -> str:
    """Of a run among several: titles may be alike."""
    return f"{number + 1}: {run.plan.about.title}"


def name_in_list(run: Run) -> str:
    return f"{run.created:%d %b %Y, %H:%M:%S} · {run.plan.about.title} · {STATUS[run.status][0]}"


def open_run(run: Run) -> None:
    """Callback: look at this run."""
    state.keep_tuning_run(run.id)
    steps.go(steps.RESULT if run.status == "done" else steps.TRAIN)


def table(runs: list[Run]) -> dict[str, list[object]]:
    figures = [figures_of(run) for run in runs]
    return {
        "Started": [run.created for run in runs],
        "Model": [run.plan.about.title for run in runs],
        "Status": [STATUS[run.status][0] for run in runs],
        "AUROC held out": [one.get("auroc") for one in figures],
        "Accuracy held out": [one.get("accuracy") for one in figures],
        "Against its start": [one.get("verdict", "") for one in figures],
    }


def figures_of(run: Run) -> dict[str, object]:
    if run.status != "done":
        return {}
    try:
        found = service.result_of(run)
    except MedFusionError:
        return {}
    figures = {name: round(found["child"][name]["value"], 3) for name in ("auroc", "accuracy")}
    return figures | {"verdict": "" if found["verdict"] == "alone" else found["verdict"]}


def interval_of(run: Run, key: str, figures: dict[str, object]) -> str:
    """A held-out figure with its interval; a dash where there is none."""
    if key not in figures:
        return "–"
    found = service.result_of(run)["child"][key]
    return f"{found['value']:.3f} ({found['low']:.3f} to {found['high']:.3f})"


def side_by_side(runs: list[Run]) -> dict[str, list[str]]:
    """Figures and the settings in which runs differ."""
    from dataclasses import asdict

    settings = [asdict(run.plan.settings) for run in runs]
    differing = [name for name in settings[0] if len({str(one[name]) for one in settings}) > 1]
    rows = {"AUROC held out": "auroc", "Accuracy held out": "accuracy"}
    table = {"Figure or setting": [*rows, *(name.replace("_", " ") for name in differing)]}
    for number, (run, held) in enumerate(zip(runs, settings, strict=True)):
        figures = figures_of(run)
        column = [interval_of(run, key, figures) for key in rows.values()] + [
            plain(str(held[name])) for name in differing
        ]
        table[plain(name_of(number, run))] = column
    return table
