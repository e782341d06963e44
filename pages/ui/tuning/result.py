"""Step 5: held-out cases, once, against the model that it started from."""

from __future__ import annotations

import base64
from pathlib import Path
from typing import Any

import streamlit as st

from pages.ui.cards import FIGURES, SHARES, class_table, show_sanity, words
from pages.ui.messages import plain, spoken
from pages.ui.pictures import file_uri
from pages.ui.tuning import steps
from training import service
from training.service import Run

VERDICTS = {
    "better": ("Better than {parent}", "The difference is larger than chance explains.", ":material/trending_up:"),
    "worse": ("Worse than {parent}", "The difference is larger than chance explains.", ":material/trending_down:"),
    "alike": ("Not told apart from {parent}", "The difference may be chance.", ":material/trending_flat:"),
    "alone": ("Nothing to compare with", "It started from a model with other answers.", ":material/help:"),
}  # fmt: skip
DRAWN = {
    "roc": "ROC",
    "precision-recall": "Precision and recall",
    "reliability": "Reliability",
    "confusion": "Confusion",
}


def show() -> None:
    run = steps.needs_run("The result")
    if run is None:
        return
    if run.status != "done":
        st.info("The result stands here once the run is done.", icon=":material/help:")
        steps.button("See the run", steps.TRAIN)
        return
    found = service.result_of(run)
    what = (
        f"{found['n']} validation cases, by which it was chosen: no case was held out, so expect less on others"
        if found.get("split") == "val"
        else f"{found['n']} held-out cases that nothing was chosen by"
    )
    st.markdown(f"**{plain(run.plan.about.title)}** on {what}")
    show_verdict(found)
    show_figures(found)
    st.table(class_table(found["child"]["per_class"]))
    show_crossed(run)
    show_drawn(run)
    show_maps(run, found)
    show_changed(run, found)
    show_sanity(service.card_of(run))
    steps.button("Go on to promotion", steps.PROMOTE)


def show_verdict(found: dict[str, Any]) -> None:
    title, meaning, icon = VERDICTS[found["verdict"]]
    parent = found.get("parent_id", "")
    always = found["commonest"]
    said = [meaning] if found["verdict"] != "alone" else ["It started from a model with other answers, or from none."]
    if parent:
        said.append(gain("AUROC", found["auroc_gain"], found.get("p_auroc"), "DeLong"))
        said.append(gain("Accuracy", found["accuracy_gain"], found["p_accuracy"], "McNemar"))
    said.append(f"Always answering {spoken(always['label'])} would be right in {100 * always['accuracy']:.1f} %.")
    if "gain" in always:
        said.append(gain("Accuracy against that", always["gain"], always["p"], "McNemar"))
    show = {"better": st.success, "worse": st.error}.get(found["verdict"], st.info)
    show(plain(" ".join(said)), title=title.format(parent=parent), icon=icon)


def gain(name: str, figure: dict[str, float], p: float | None, test: str) -> str:
    probable = f"; {test} p {'< 0.001' if p < 0.001 else f'= {p:.3f}'}" if p is not None and p == p else ""
    return f"{name} {figure['value']:+.3f} ({figure['low']:+.3f} to {figure['high']:+.3f}{probable})."


def show_figures(found: dict[str, Any]) -> None:
    """New model and start side by side, with intervals."""
    columns = {"New model": found["child"]}
    if found.get("parent"):
        columns[f"{found['parent_id']} {found['parent_version']}"] = found["parent"]
    table: dict[str, list[str]] = {"Figure": [FIGURES[key][0] for key in FIGURES]}
    for name, figures in columns.items():
        table[plain(name)] = [" ".join(filter(None, words(figures[key], key in SHARES))) for key in FIGURES]
    st.table(table)


def show_crossed(run: Run) -> None:
    """What cross-validation found, where there was one."""
    crossed = service.crossed_of(run)
    if crossed is None:
        return
    n, folds = crossed["pooled"]["n"], len(crossed["folds"]["auroc"])
    with st.expander(f"Cross-validation: {n} cases in {folds} folds", icon=":material/dataset:"):
        names = list(crossed["mean"])
        st.table(
            {
                "Figure": [FIGURES[name][0] for name in names],
                "Mean of the folds": [f"{crossed['mean'][name]:.3f} ± {crossed['spread'][name]:.3f}" for name in names],
                "All folds together": [" ".join(words(crossed["pooled"][name], False)) for name in names],
            }
        )
        st.caption(
            "Each case was answered by a network that never saw it. Calibration and thresholds of the model rest on "
            "these answers. ±: standard deviation over the folds; in brackets, 95 % intervals."
        )


def show_drawn(run: Run) -> None:
    """Curves as the evaluation report draws them."""
    folder = run.folder / "report" / "figures"
    with st.expander("Curves, reliability and confusion", expanded=True), st.grid(len(DRAWN), min_column_width=240):
        for name, title in DRAWN.items():
            path = folder / f"{name}.svg"
            if path.exists():
                with st.container(border=True):
                    st.caption(title)
                    st.image(on_paper(path), width="stretch", alt=f"{title} of the held-out cases")


def on_paper(path: Path) -> str:
    """A figure drawn in black, on white in either theme."""
    svg = path.read_text(encoding="utf-8")
    svg = svg.replace("<defs>", '<rect width="100%" height="100%" fill="white"/><defs>', 1)
    return f"data:image/svg+xml;base64,{base64.b64encode(svg.encode()).decode()}"


def show_changed(run: Run, found: dict[str, Any]) -> None:
    """How the new model's maps differ from those of its start, on any cases."""
    changed = found.get("changed")
    if not changed:
        return
    title = f"How explanations changed: alike {changed['likeness']:.2f} on {changed['n']} cases"
    with st.expander(title, icon=":material/compare:"):
        st.caption(
            "Rank correlation of both models' Grad-CAM for the true class. Near 1, the new model looks where its start "
            "looked; near 0, somewhere else. Shown are the cases where it changed most."
        )
        for number, one in enumerate(changed["cases"]):
            said = f"{spoken(one['label'])}, called {spoken(one['answer'])}; maps alike {one['likeness']:.2f}"
            show_case(run, f"changed-{number}", f"**{number + 1}** {plain(said)}")


def show_case(run: Run, name: str, said: str) -> None:
    """A scan with the maps of both models."""
    st.markdown(said)
    with st.grid(3, min_column_width=150):
        for who, title in (("scan", "Scan"), ("child", "New model"), ("parent", "Start")):
            path = run.folder / "maps" / f"{name}-{who}.webp"
            if path.exists():
                st.image(file_uri(path), caption=title, width="stretch", alt=f"{title}: {said.replace('*', '')}")


def show_maps(run: Run, found: dict[str, Any]) -> None:
    """The worst errors, and what the new model and its start looked at."""
    if not found["maps"]:
        st.caption("No held-out case was answered wrongly.")
        return
    alike = [one["likeness"] for one in found["maps"] if "likeness" in one]
    seen = "what both models looked at" if alike else "what the model looked at"
    with st.expander(f"The {len(found['maps'])} worst errors, with {seen}", icon=":material/error:"):
        if alike:
            mean = sum(alike) / len(alike)
            st.caption(
                f"Rank correlation of both models' Grad-CAM: {mean:.2f} on average. Near 1, the new model looks "
                "where its start looked; near 0, somewhere else."
            )
        for number, one in enumerate(found["maps"]):
            said = (
                f"is {spoken(one['label'])}, was called {spoken(one['answer'])}; the truth got "
                f"{100 * one['given']:.0f} %; maps for {spoken(one['target'])}"
            )
            if "likeness" in one:
                said += f"; maps alike {one['likeness']:.2f}"
            show_case(run, str(number), f"**{number + 1}** {plain(said)}")
