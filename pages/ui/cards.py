"""A model's card as a clinician reads it: what it is for, how well it does, what it must not be used for."""

from __future__ import annotations

from collections.abc import Mapping

import streamlit as st

from medfusion import service
from medfusion.types import ModelCard
from pages.ui.messages import plain, prose, spoken

ADDRESSED = "model"  # the query parameter of links to a card
SPLITS = {"train": "Training", "val": "Validation", "test": "Held out", "own": "Your own"}
FIGURES = {
    "accuracy": ("Accuracy", "Share of pictures answered rightly at the operating point."),
    "balanced_accuracy": ("Balanced accuracy", "Mean over the classes of the share answered rightly."),
    "auroc": ("AUROC", "Chance that a picture of a class ranks above one that is not; 1 is perfect, 0.5 is guessing."),
    "ece": ("Calibration error", "Mean gap between stated probability and observed share; 0 is perfect."),
    "brier": ("Brier score", "Mean squared error of the probabilities; 0 is perfect."),
}
SHARES = {"accuracy", "balanced_accuracy", "sensitivity", "specificity"}


def choose(by_id: dict[str, ModelCard]) -> ModelCard:
    """The card to show: the one that the address names, or the first. A start for local data comes last."""
    named = st.query_params.get(ADDRESSED)
    first = list(by_id).index(named) if named in by_id else 0
    chosen = st.selectbox("Model", list(by_id), index=first, format_func=lambda id: by_id[id].title)
    return by_id[chosen]


def show_card(card: ModelCard) -> None:
    """The whole card, the most needed first."""
    st.header(plain(card.title))
    st.caption(plain(f"{card.modality} · version {card.version} · size {card.size}"))
    use, limits = st.columns(2, gap="large")
    with use:
        st.subheader("Intended use")
        st.markdown(prose(card.intended_use) or "Not stated.")
        st.markdown(f"**Answers:** {plain(', '.join(map(spoken, card.classes)))}")
        st.markdown(f"**Operating point:** {prose(card.operating_point.rule)}")
    with limits:
        st.subheader("Limits")
        st.markdown("\n".join(f"- {prose(limit)}" for limit in card.limits) or "Not stated.")
    show_metrics(card)
    show_data(card)
    show_details(card)


def show_metrics(card: ModelCard) -> None:
    """Figures of the held-out pictures first; other splits on demand."""
    st.subheader("How well it does")
    if card.role == "foundation":
        show_sets(card.metrics.get("val_by_set"))
        return
    splits = {
        name: figures for name, figures in card.metrics.items() if name in SPLITS and isinstance(figures, Mapping)
    }
    if not splits:
        st.info("This model has not been measured.", icon=":material/help:")
        return
    if elsewhere := card.data.get("calibrated_on"):
        st.caption(plain(f"Calibrated and measured on {elsewhere}, which is not what it was trained on"))
    first, *rest = (name for name in ("test", "val", "train") if name in splits)
    show_split(first, splits[first])
    for name in rest:
        with st.expander(f"{SPLITS[name]} pictures"):
            show_split(name, splits[name])
    show_folds(card.metrics.get("cross_validation"))
    show_seeds(card.metrics.get("seeds"))
    show_robustness(card.metrics.get("robustness"))
    show_sanity(card)


def show_folds(found: object) -> None:
    """What networks did on cases that they had not seen, where calibration rests on these answers."""
    if not isinstance(found, Mapping):
        return
    mean, spread = found["mean"]["auroc"], found["spread"]["auroc"]
    with st.expander(f"Cross-validation: AUROC {mean:.3f} ± {spread:.3f} over {len(found['folds']['auroc'])} folds"):
        st.caption(
            "Each training and validation picture answered by a network that had not seen it. Temperature, operating "
            "point and prediction sets rest on these answers."
        )
        show_split("All folds", found["pooled"])


def show_seeds(found: object) -> None:
    """How far figures vary by chance: each network of an average alone."""
    if not isinstance(found, Mapping) or not found:
        return
    with st.expander(f"By chance: {len(found)} trainings that differ in their seed alone"):
        st.caption("Each network by its most probable class; the model is made from them")
        table: dict[str, list[str]] = {"Seed": [plain(seed) for seed in found]}
        first, *others = found.values()
        for split in (name for name in first if all(name in row for row in others)):
            name = SPLITS.get(split, plain(split))
            table[f"{name}: accuracy"] = [counted(row[split]["accuracy"]) for row in found.values()]
            table[f"{name}: AUROC"] = [f"{row[split]['auroc']:.3f}" for row in found.values()]
        st.table(table)


def show_sets(by_set: object) -> None:
    """How well a foundation model tells apart the classes of each set that it was trained on."""
    if not isinstance(by_set, Mapping) or not by_set:
        st.info("This model has not been measured.", icon=":material/help:")
        return
    st.caption("On validation pictures of each set, among the classes of that set")
    table: dict[str, list[str]] = {"Set": [plain(name) for name in by_set]}
    table["Pictures"] = [str(figures["n"]) for figures in by_set.values()]
    table["Accuracy"] = [counted(figures["accuracy"]) for figures in by_set.values()]
    table["AUROC"] = [f"{figures['auroc']:.3f}" for figures in by_set.values()]
    table["Known to be of this set"] = [counted(figures["told_apart"]) for figures in by_set.values()]
    st.table(table)


def show_robustness(found: object) -> None:
    """What noise, blur, crops and so on cost."""
    if not isinstance(found, Mapping):
        return
    with st.expander(f"When pictures are worse: {found['mean_drop']:.3f} of AUROC lost on average"):
        st.caption(f"On {found['n']} validation pictures, each changed so that a reader notices and still reads it")
        drops = {name: row["3"] for name, row in found["drops"].items()}
        lost = [f"{drop:.3f}" for drop in drops.values()]
        st.table({"Change": [plain(name.capitalize()) for name in drops], "AUROC lost": lost})


def show_sanity(card: ModelCard) -> None:
    """Whether the maps of each method depend on what this model has learned."""
    found = card.metrics.get("sanity")
    if not isinstance(found, Mapping) or "weights" not in found:
        return
    known = {name: list(row.values())[-1] for name, row in found["weights"].items() if name in service.EXPLAINERS}
    refused = [name for name in known if service.refusal(card, name)]
    kept = f"{len(known) - len(refused)} of {len(known)} methods show the model and not just the picture"
    with st.expander(f"Maps: {kept}"):
        st.caption(
            f"How alike maps of {found['scans']} validation pictures stay when the model is not itself: rank "
            f"correlation, 1 is the same map. A method that stays at {service.ALIKE} or more with random "
            "weights is not shown for this model."
        )
        labels = found.get("labels", {})
        table = {
            "Method": [service.EXPLAINERS[name].title for name in known],
            "All weights random": [f"{value:.2f}" for value in known.values()],
            "Trained on shuffled labels": [f"{labels[name]:.2f}" if name in labels else "" for name in known],
            "Shown": ["no" if name in refused else "yes" for name in known],
        }
        st.table(table)


def show_split(name: str, figures: Mapping[str, object]) -> None:
    st.caption(
        f"{SPLITS.get(name, plain(name))}: {figures.get('n', 'unknown number of')} pictures; 95 % intervals in brackets"
    )
    measured = [key for key in FIGURES if key in figures]
    with st.grid(len(measured) or 1, min_column_width=140):
        for key in measured:
            label, meaning = FIGURES[key]
            value, interval = words(figures[key], key in SHARES)
            st.metric(
                label,
                value,
                delta=interval or None,
                delta_color="off",
                delta_arrow="off",
                help=meaning,
                border=True,
                height="stretch",
            )
    sets = figures.get("prediction_sets")
    if isinstance(sets, Mapping):
        st.caption(
            f"Prediction sets made to hold the right class in 90 % of cases do so in {counted(sets['coverage'])}; "
            f"in {counted(sets['single'])} they name one class, in the others the model abstains."
        )
    per_class = figures.get("per_class")
    if isinstance(per_class, Mapping) and per_class:
        st.table(class_table(per_class))


def class_table(per_class: Mapping[str, Mapping[str, object]]) -> dict[str, list[str]]:
    """Columns of a table: class, sensitivity, specificity."""
    table: dict[str, list[str]] = {"Class": [plain(spoken(name)) for name in per_class]}
    for key in ("sensitivity", "specificity"):
        cells = [words(figures.get(key), True) for figures in per_class.values()]
        table[f"{key.capitalize()} at the operating point"] = [" ".join(filter(None, cell)) for cell in cells]
    return table


def words(figure: object, share: bool) -> tuple[str, str]:
    """A measured figure and its interval in words; the interval is empty where there is none."""
    if isinstance(figure, int | float):
        figure = {"value": figure}
    if not isinstance(figure, Mapping) or "value" not in figure:
        return "not measured", ""
    form = counted if share else "{:.3f}".format
    known = "low" in figure and "high" in figure
    return form(figure["value"]), f"({form(figure['low'])} to {form(figure['high'])})" if known else ""


def counted(share: float) -> str:
    """A counted share; unlike a probability it may be all."""
    return f"{100 * share:.1f} %"


def show_data(card: ModelCard) -> None:
    st.subheader("What it was trained on")
    data = card.data
    for key, label in (("source", "Source"), ("licence", "Licence of the data"), ("citation", "Citation")):
        if data.get(key):
            st.markdown(f"**{label}:** {prose(str(data[key]))}")
    splits = data.get("splits")
    if isinstance(splits, Mapping) and splits:
        st.table(split_table(splits, card.classes))


def split_table(splits: Mapping[str, object], classes: tuple[str, ...]) -> dict[str, list[str]]:
    """Columns of a table: class, pictures of it in each part; the last row is all."""
    counts = {name: part for name in (*SPLITS, *splits) if isinstance(part := splits.get(name), Mapping)}
    table = {"Class": [*(plain(spoken(name)) for name in classes), "All"]}
    for name, part in counts.items():
        numbers = [part.get(label, 0) for label in classes]
        table[SPLITS.get(name, plain(name))] = [f"{number:,}" for number in (*numbers, sum(numbers))]
    return table


def show_details(card: ModelCard) -> None:
    """What a data scientist asks for."""
    with st.expander("Details: input, calibration, training, licence, checksum"):
        codes = ", ".join(card.dicom_modalities) or "not stated"
        size = f"{card.input.width_px} × {card.input.height_px} px, {'colour' if card.colour else 'grey'}"
        st.markdown(f"**Input:** {size}; DICOM modalities {plain(codes)}")
        st.markdown(f"**Temperature:** {card.temperature:.3f}")
        if card.class_offsets:
            pairs = zip(card.classes, card.class_offsets, strict=True)
            offsets = ", ".join(f"{plain(spoken(name))} {offset:+.2f}" for name, offset in pairs)
            st.markdown(f"**Offsets of the classes, in the weights:** {offsets}")
        st.markdown(f"**Licence of the weights:** {plain(card.license) or 'not stated'}")
        st.markdown(f"**Identifier:** `{card.id}`, version `{card.version}`")
        st.markdown(f"**SHA-256 of the weights:** `{card.weights_sha256}`")
        training = dict(card.training)
        if note := training.pop("note", None):
            st.markdown(f"**Training:** {prose(str(note))}")
        if command := training.pop("command", None):
            st.code(str(command), language=None, wrap_lines=True)
        if training:
            st.json(training, expanded=1)
