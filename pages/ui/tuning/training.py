"""Step 4: the run as it goes. The page only reads what the run writes: closing it changes nothing."""

from __future__ import annotations

import plotly.graph_objects as go
import streamlit as st

from pages.ui.figure import ink, plain_layout
from pages.ui.messages import explained_errors, plain, spoken
from pages.ui.pictures import file_uri
from pages.ui.tuning import steps
from pages.ui.tuning.settings import duration
from training import service
from training.service import Event, Run

EVERY = "2s"
AFTER = ("Choosing", "Learning", "Testing", "Measuring")  # how phases begin in which nothing is trained any more
LOOKS = 8  # maps in a row at most
PINNED_PX = 320  # of the pinned case at most: in a narrow window it stands alone
LINES = 40  # of the log
CURVES = {"train_loss": ("Loss, training", "#8a8f94", "dot"), "val_loss": ("Loss, validation", "#3b8fc4", "solid")}
SKILL = {"val_auroc": ("AUROC", "#3b8fc4", "solid"), "val_accuracy": ("Accuracy", "#c47a2c", "solid")}
STATUS = {
    "queued": ("Waiting for its turn", ":material/hourglass_top:"),
    "running": ("Running", ":material/play_arrow:"),
    "done": ("Done", ":material/check_circle:"),
    "failed": ("Failed", ":material/error:"),
    "cancelled": ("Cancelled", ":material/cancel:"),
    "interrupted": ("Interrupted", ":material/pause_circle:"),
}


def show() -> None:
    run = steps.needs_run("The run")
    if run is None:
        return
    if run.is_active:
        live(run.id, run.status)
    else:
        show_run(run)


@st.fragment(run_every=EVERY)
def live(run_id: str, status: str) -> None:
    """Looks again every two seconds; the rest of the page stays until the status changes."""
    with explained_errors():
        run = service.find_run(run_id)
        if run.status != status:
            st.rerun()
        show_run(run)


def show_run(run: Run) -> None:
    events = service.read_events(run.folder)
    name, icon = STATUS[run.status]
    st.markdown(f"{icon} **{plain(run.plan.about.title)}** · {name} · {run.created:%d %b %Y, %H:%M}")
    show_message(run)
    show_figures(run, events)
    show_buttons(run, events)
    show_trials(events)
    show_curves(run, events)
    show_notes(run, events)


def show_message(run: Run) -> None:
    if run.status == "failed":
        st.error(plain(run.message), title="The run could not be finished", icon=":material/error:")
    elif run.status == "interrupted":
        st.warning(
            "Its process is gone: the machine was restarted, or ran out of memory. It goes on from the last epoch to "
            "the same result.",
            icon=":material/pause_circle:",
        )
    elif run.message:
        st.info(plain(run.message), icon=":material/info:")
    elif run.is_stopping:
        st.info("Stopping after this step. The best weights so far are measured then.", icon=":material/info:")


def show_figures(run: Run, events: list[Event]) -> None:
    begun, step, phase = (service.last(events, kind) for kind in ("begin", "step", "phase"))
    done = service.epochs(events)
    best = max((epoch.get("val_auroc", 0.0) for epoch in done), default=None)
    total = begun["epochs"] if begun else run.plan.settings.epochs
    training = run.status == "running" and phase is not None and phase["text"] == "Training"
    if run.is_active and phase:
        part = step["step"] / begun["steps"] if training and step and begun and begun["steps"] else 0.0
        if training:
            left = f", {duration(step['left_s'])} left" if step else ""
            st.progress(min(1.0, part), text=f"Training{left}")
        else:
            st.markdown(f":material/hourglass_top: {plain(phase['text'])}…")
    with st.grid(4, min_column_width=130):
        st.metric("Epochs", f"{len(done)} of {total}", border=True)
        st.metric("Best AUROC on validation", f"{best:.3f}" if best is not None else "–", border=True)
        st.metric("Learning rate", f"{step['learning_rate']:.1e}" if step else "–", border=True)
        st.metric("Memory", f"{step['memory_mb'] / 1024:.1f} GB" if step else "–", border=True)


def show_buttons(run: Run, events: list[Event]) -> None:
    phase = service.last(events, "phase")
    trained = phase is not None and phase["text"].startswith(AFTER)
    with st.container(horizontal=True):
        if run.status == "running" and not trained:
            st.button(
                "Stop and keep the best", icon=":material/stop:", on_click=service.stop, args=(run.id,),
                key="tuning-stop", disabled=run.is_stopping,
            )  # fmt: skip
        if run.is_active or run.status == "interrupted":
            with st.popover("Cancel", icon=":material/cancel:", key="tuning-cancel"):
                st.markdown("What the run has learned is discarded.")
                st.button(
                    "Cancel this run", on_click=service.cancel, args=(run.id,), type="primary", key="tuning-cancel-now"
                )
        if run.status in ("interrupted", "failed"):
            st.button(
                "Go on",
                icon=":material/resume:",
                on_click=service.resume,
                args=(run.id,),
                type="primary",
                key="tuning-resume",
            )
        if run.can_finish:
            st.button(
                "Keep the best so far", icon=":material/stop:", on_click=service.finish, args=(run.id,),
                key="tuning-finish", help="Trains no further: the best weights are measured.",
            )  # fmt: skip
        if run.status == "done":
            steps.button("See the result", steps.RESULT)


def show_curves(run: Run, events: list[Event]) -> None:
    done = service.epochs(events)
    if not done:
        if run.is_active:
            st.caption("Curves begin after the first epoch.")
        return
    left, middle, right = st.columns([2, 2, 1.2])
    with left:
        st.plotly_chart(curves(done, CURVES), key="tuning-loss", config={"displayModeBar": False}, alt="Loss by epoch")
    with middle:
        st.plotly_chart(
            curves(done, SKILL), key="tuning-skill", config={"displayModeBar": False}, alt="AUROC and accuracy by epoch"
        )
    with right, st.container(width=PINNED_PX):
        newest = done[-1]["epoch"]
        pinned = run.folder / "pinned" / f"{newest}.webp"
        if pinned.exists():
            st.image(
                file_uri(pinned),
                caption=f"What it looks at after epoch {newest + 1}: one validation case",
                width="stretch",
                alt=f"Grad-CAM of one validation case after epoch {newest + 1}",
            )
    show_looks(run, done)


def show_looks(run: Run, done: list[Event]) -> None:
    """The map of the pinned case at epochs spread over the run, so that it is seen how it came about."""
    kept = [(one["epoch"], path) for one in done if (path := run.folder / "pinned" / f"{one['epoch']}.webp").exists()]
    if len(kept) < 2:
        return
    shown = min(LOOKS, len(kept))
    chosen = [kept[round(place * (len(kept) - 1) / (shown - 1))] for place in range(shown)]
    with st.expander("What it looked at, epoch by epoch", icon=":material/visibility:"), st.grid(LOOKS):
        for epoch, path in chosen:
            words = f"Grad-CAM of one validation case after epoch {epoch + 1}"
            st.image(file_uri(path), caption=f"{epoch + 1}", width="stretch", alt=words)


def show_trials(events: list[Event]) -> None:
    """What the search for settings has tried, the best first."""
    tried = [event for event in events if event["kind"] == "trial"]
    if not tried:
        return
    order = sorted(tried, key=lambda one: (one["cut_off"], one["val_loss"] or 0.0))
    with st.expander(f"Search for settings: {len(tried)} trials", icon=":material/manage_search:"):
        table = {"Trial": [str(one["number"] + 1) for one in order]}
        table["Loss on validation"] = [loss_of(one) for one in order]
        for name in order[0]["settings"]:
            values = [one["settings"][name] for one in order]
            texts = [f"{value:.2g}" if isinstance(value, float) else spoken(str(value)) for value in values]
            table[spoken(name).capitalize()] = texts
        st.table(table)


def loss_of(trial: Event) -> str:
    if trial["val_loss"] is None:
        return "could not be trained"
    return f"{trial['val_loss']:.3f}{', cut off' if trial['cut_off'] else ''}"


def curves(done: list[Event], which: dict[str, tuple[str, str, str]]) -> go.Figure:
    figure = go.Figure()
    numbers = [epoch["epoch"] + 1 for epoch in done]
    for name, (label, colour, dash) in which.items():
        values = [epoch.get(name) for epoch in done]
        line = {"color": colour, "dash": dash, "width": 2}
        figure.add_scatter(x=numbers, y=values, name=label, mode="lines+markers", line=line, marker={"size": 5})
    return by_epoch(figure, len(done))


def by_epoch(figure: go.Figure, epochs: int) -> go.Figure:
    figure.update_xaxes(title="Epoch", showgrid=False, zeroline=False, linecolor=ink(), dtick=max(1, epochs // 8))
    figure.update_yaxes(gridcolor="rgba(128,128,128,0.25)", zeroline=False, automargin=True)
    margin = {"l": 40, "r": 8, "t": 8, "b": 40}
    figure.update_layout(height=250, margin=margin, legend={"orientation": "h", "y": 1.12}, uirevision="keep")
    return figure.update_layout(showlegend=True, **plain_layout())


def show_notes(run: Run, events: list[Event]) -> None:
    for note in (event["text"] for event in events if event["kind"] == "note"):
        st.info(plain(note), icon=":material/info:")
    with st.expander("Log and settings"):
        st.code("\n".join(service.in_lines(events)[-LINES:]) or "Nothing yet.", language=None)
        log = run.folder / "log.txt"
        written = tail(log.read_text(encoding="utf-8", errors="replace")) if log.exists() else ""
        if written:
            st.caption("What the program wrote besides")
            st.code(written, language=None)
        st.json(run.plan.as_json(), expanded=1)
        st.caption(f"Classes: {plain(', '.join(map(spoken, run.plan.about.classes)) or 'as in the set')}")


def tail(text: str, lines: int = LINES) -> str:
    """The last lines; a progress bar's line counts once."""
    return "\n".join(line.rsplit("\r", 1)[-1] for line in text.splitlines()[-lines:])
