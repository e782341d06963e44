"""All runs: what became of them, side by side, and away with them."""

from __future__ import annotations

import streamlit as st

from medfusion.errors import MedFusionError
from pages.ui import state
from pages.ui.messages import explained_errors, plain
from pages.ui.tuning import steps
from pages.ui.tuning.training import STATUS
from training import service
from training.service import Run


def show_runs() -> None:
    known = service.list_runs()
    if not known:
        st.caption("Runs stand here once there are some.")
        return
    st.subheader("Runs", anchor=False)
    names = {key: name for key, (name, _) in STATUS.items() if any(run.status == key for run in known)}
    wanted = st.pills("Show", list(names), selection_mode="multi", format_func=names.__getitem__, key="runs-filter")
    shown = [run for run in known if not wanted or run.status in wanted]
    chosen = st.dataframe(
        table(shown), hide_index=True, selection_mode="multi-row", on_select="rerun", key="runs-table", alt="All runs"
    )
    rows = [shown[row] for row in chosen["selection"]["rows"] if row < len(shown)]
    if not rows:
        st.caption("Select a run to open or delete it; several to see their settings side by side.")
        return
    with st.container(horizontal=True):
        if len(rows) == 1:
            st.button("Open", on_click=open_run, args=(rows[0],), type="primary", key="runs-open")
        with st.popover("Delete", icon=":material/delete:", key="runs-delete"):
            st.markdown("Its curves, checkpoints and result go. Promoted models stay.")
            if st.button("Delete now", type="primary", key="runs-delete-now"):
                with explained_errors():
                    for run in rows:
                        service.delete(run.id)
                    st.rerun()
    if len(rows) > 1:
        st.table(side_by_side(rows))


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
    return figures | {"verdict": found["verdict"]}


def side_by_side(runs: list[Run]) -> dict[str, list[str]]:
    """Figures and the settings in which runs differ."""
    from dataclasses import asdict

    settings = [asdict(run.plan.settings) for run in runs]
    differing = [name for name in settings[0] if len({str(one[name]) for one in settings}) > 1]
    rows = {"AUROC held out": "auroc", "Accuracy held out": "accuracy"}
    table = {"": [*rows, *(name.replace("_", " ") for name in differing)]}
    for number, (run, held) in enumerate(zip(runs, settings, strict=True), start=1):
        figures = figures_of(run)
        column = [str(figures.get(key, "–")) for key in rows.values()] + [plain(str(held[name])) for name in differing]
        table[f"{number}: {plain(run.plan.about.title)}"] = column
    return table
