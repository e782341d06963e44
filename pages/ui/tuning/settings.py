"""Step 3: three choices for a clinician; everything else under "advanced", with a sentence each."""

from __future__ import annotations

import re
from dataclasses import asdict, dataclass, replace
from typing import Any

import streamlit as st

from medfusion.errors import MedFusionError
from medfusion.types import ModelCard
from pages.ui import state
from pages.ui.messages import explained_errors, plain, spoken
from pages.ui.tuning import steps
from training import service
from training.service import About, Plan, StoredSet, TrainConfig

LENGTHS = {"Short": 6, "Standard": 15, "Long": 40}  # epochs
CARES: dict[str, dict[str, Any]] = {
    "Careful": {"frozen_stages": 3, "learning_rate": 3e-4},
    "Balanced": {"frozen_stages": 2, "learning_rate": 6e-4},
    "Bold": {"frozen_stages": 1, "learning_rate": 1e-3},
}
CARE_HELP = (
    "Careful keeps most of what the start knows: right for few cases like those it knows. Bold lets it change more: "
    "right for many cases that look different."
)
FOUNDATION = "General start for medical pictures"
IMAGENET = "Photographs of everyday things (ImageNet)"
LICENCE = "Of the site that trained it; that of the start applies too"
FEW, FEW_FOLDS = 100, 5  # validation pictures under which cross-validation is offered, and its folds
EMPTY = {"scratch": "Nothing: random weights"}


@dataclass(frozen=True)
class Setting:
    label: str
    says: str
    low: float = 0.0
    high: float = 1.0
    step: float = 1.0
    options: tuple[str, ...] = ()


ADVANCED = {
    "epochs": Setting("Epochs", "How often each case is seen at most.", 1, 500),
    "patience": Setting("Early stopping", "Epochs without a better validation loss after which training ends.", 1, 500),
    "minutes": Setting("Time budget (minutes)", "Training ends after so long; 0 is no limit.", 0, 10_000, 5.0),
    "frozen_stages": Setting("Frozen stages", "First stages of the network that stay as they are.", 0, 5),
    "learning_rate": Setting("Learning rate", "How far a step goes. Halve it when the loss jumps.", 1e-5, 0.01, 1e-4),
    "batch_size": Setting("Batch size", "Cases a step. 0: found by itself; halved where memory runs out.", 0, 512),
    "augmentation": Setting("Augmentation", "What may differ between sites.", options=tuple(service.RECIPES)),
    "balance": Setting("Imbalance", "What is done about rare classes.", options=tuple(service.BALANCES)),
    "class_weighting": Setting("Class weighting", "0 treats all cases alike, 1 all classes alike.", 0, 1, 0.1),
    "calibration": Setting("Calibration", "What validation cases correct.", options=tuple(service.CALIBRATIONS)),
    "label_smoothing": Setting("Label smoothing", "How far labels are doubted.", 0, 0.3, 0.01),
    "precision": Setting("Precision", "Number format; auto takes the quickest safe one.", options=service.PRECISIONS),
    "folds": Setting("Cross-validation", "Folds; each costs as much as the training itself. 0: none.", 0, 10),
    "trials": Setting("Search for settings", "Trials, each a third as long as the training. 0: none.", 0, 200),
    "sanity_epochs": Setting("Map tests", "Epochs of a twin on shuffled labels; do maps change? 0 saves time.", 0, 20),
    "seed": Setting("Seed", "The same seed gives the same model.", 0, 2**31 - 1),
}  # fmt: skip


OPTIONS = {
    key: {name: f"Now: {says}." for name, says in options.items()}
    for key, options in (("balance", service.BALANCES), ("calibration", service.CALIBRATIONS))
}


def show() -> None:
    stored = steps.current_set()
    if stored is None or stored.found is None or stored.found.blocks:
        st.info("Settings come after a set that passed its check.", icon=":material/help:")
        steps.button("To the data", steps.DATA) if stored is None else steps.button("To the check", steps.CHECK)
        return
    classes = tuple(sorted(next(iter(stored.found.counts.values()))))
    st.markdown(f"**{plain(stored.name)}**: {plain(', '.join(classes))}")
    loaded = load()
    start, card = choose_start(classes, loaded)
    like = card if card and card.role == "diagnosis" else kind_of(stored, classes)
    length, care = choose_pace(loaded)
    base = base_settings(start, card, like, LENGTHS[length], CARES[care], loaded)
    settings = advanced(base | ({"folds": FEW_FOLDS} if offer_folds(stored) else {}))
    about, model_id = describe(stored, classes, card, like, loaded)
    with explained_errors():
        plan = Plan(model_id, TrainConfig(**settings), about, tuple(stored.found.left_out))
        estimate(plan, stored)
        begin(plan, stored)


def load() -> Plan | None:
    """Settings from a file, if one was given."""
    with st.popover("Load settings", icon=":material/upload_file:"):
        file = st.file_uploader("Settings of an earlier run", type="json", key="tuning-plan")
    if file is None:
        return None
    try:
        return service.read_plan(file.getvalue().decode("utf-8"))
    except (UnicodeDecodeError, MedFusionError) as error:
        st.error(plain(str(error)), title="These settings cannot be used", icon=":material/error:")
        return None


def choose_start(classes: tuple[str, ...], loaded: Plan | None) -> tuple[str, ModelCard | None]:
    """The model that training starts from, by id."""
    cards = {card.id: card for card in service.list_starts(classes)}
    names = {id: FOUNDATION if card.role == "foundation" else card.title for id, card in cards.items()}
    names |= {"imagenet": IMAGENET} | EMPTY
    wanted = loaded.settings.start if loaded and loaded.settings.start in names else next(iter(names))
    chosen = st.selectbox(
        "Start from which model?",
        list(names),
        index=list(names).index(wanted),
        format_func=names.__getitem__,
        key=f"tuning-start-{'-'.join(classes)}-{wanted}",
        help="A model with the same classes goes on learning and is compared with the result.",
    )
    return chosen, cards.get(chosen)


def kind_of(stored: StoredSet, classes: tuple[str, ...]) -> ModelCard | None:
    """The model that was trained on pictures of this kind, if one was."""
    kind = stored.found.kind if stored.found else ""
    return next((card for card in service.list_starts(classes) if card.id == kind), None)


def choose_pace(loaded: Plan | None) -> tuple[str, str]:
    left, right = st.columns(2)
    with left:
        length = st.segmented_control(
            "How long?", list(LENGTHS), default="Standard", required=True, key="tuning-length",
            help=", ".join(f"{name}: {epochs} times through all cases at most" for name, epochs in LENGTHS.items()),
            persist_state="session",
        )  # fmt: skip
    with right:
        care = st.segmented_control(
            "How careful?", list(CARES), default="Balanced", required=True, key="tuning-care", help=CARE_HELP,
            persist_state="session",
        )  # fmt: skip
    if loaded:
        st.caption("The loaded settings replace both; change them under advanced settings.")
    return length or "Standard", care or "Balanced"


def offer_folds(stored: StoredSet) -> bool:
    """Whether a small set is to be cross-validated, too."""
    _, val = sizes(stored)
    if val >= FEW:
        return False
    return st.toggle(
        f"Cross-validate: with only {val} validation pictures, figures and thresholds rest on few cases",
        key=f"tuning-crossed-{stored.id}",
        help=f"Every case is then answered by a network that never saw it. Takes {FEW_FOLDS + 1} times as long.",
        persist_state="session",
    )


def base_settings(
    start: str, card: ModelCard | None, like: ModelCard | None, epochs: int, care: dict[str, Any], loaded: Plan | None
) -> dict[str, Any]:
    """The settings that the three choices mean, or the loaded ones, for this start."""
    if loaded:
        return asdict(loaded.settings) | {"start": start}
    base = asdict(TrainConfig()) | care | {"start": start, "epochs": epochs, "patience": max(6, epochs // 2)}
    if card:
        base |= {"size": card.size, "side_px": card.input.height_px}
    if like:
        base |= {"augmentation": service.recipe_of(like)}
    if start in EMPTY:
        base |= {"frozen_stages": 0}
    return base


def advanced(base: dict[str, Any]) -> dict[str, Any]:
    """Every other setting, with a sentence each. A change of the three choices sets them anew."""
    chosen = dict(base)
    about = "-".join(str(base[name]) for name in ADVANCED) + str(base["start"])
    with st.expander("Advanced settings", icon=":material/tune:"), st.grid(3, min_column_width=220):
        for name, setting in ADVANCED.items():
            chosen[name] = field(name, setting, base[name], f"tuning-{name}-{about}")
    return chosen


def field(name: str, setting: Setting, value: Any, key: str) -> Any:
    """A widget with its sentence below; of a choice among remedies the sentence is that of the chosen one.

    Loaded settings may lie beyond what the page offers: they stay as they are.
    """
    with st.container(gap="xxsmall"):
        if setting.options:
            index = setting.options.index(str(value))
            chosen = st.selectbox(setting.label, setting.options, index=index, key=key, format_func=spoken)
            st.caption(f"{setting.says} {OPTIONS.get(name, {}).get(chosen, '')}".strip())
            return chosen
        kind: Any = type(getattr(TrainConfig(), name))
        form = None if kind is int else "%.5f" if setting.step < 0.01 else "%.2f"
        low, high = kind(min(setting.low, value)), kind(max(setting.high, value))
        given = st.number_input(setting.label, low, high, kind(value), kind(setting.step), form, key=key)
        st.caption(setting.says)
        return given


def describe(
    stored: StoredSet,
    classes: tuple[str, ...],
    card: ModelCard | None,
    like: ModelCard | None,
    loaded: Plan | None,
) -> tuple[About, str]:
    """What only a person can say of the new model, begun from what is known of its start."""
    same = card if card and card.role == "diagnosis" and set(card.classes) == set(classes) else None
    title = loaded.about.title if loaded else f"{same.title}, this site" if same else ""
    modality = loaded.about.modality if loaded else like.modality if like else ""
    left, right = st.columns(2)
    about_what = f"{stored.id}-{card.id if card else ''}-{bool(loaded)}"
    with left:
        title = st.text_input(
            "What is the model for?", title, max_chars=100, key=f"tuning-title-{about_what}",
            placeholder="Pneumonia on chest X-rays of our ward",
        )  # fmt: skip
    with right:
        modality = st.text_input(
            "What kind of pictures?", modality, max_chars=100, key=f"tuning-modality-{about_what}",
            placeholder="Frontal chest X-ray",
        )  # fmt: skip
    order = same.classes if same else (loaded.about.classes if loaded else ())
    assert stored.found is not None
    if len(classes) == 2 and not same and not stored.found.several:
        ill = st.radio(
            "Which class is looked for?", classes, index=1, horizontal=True, key=f"tuning-ill-{about_what}",
            help="Sensitivity is that of this class, and the operating point is chosen so that it is found.",
        )  # fmt: skip
        order = (next(name for name in classes if name != ill), ill)
    about = About(
        title or "Model of this site",
        modality or About("").modality,
        like.dicom_modalities if like else (),
        like.colour if like else None,
        classes=order if set(order) == set(classes) else (),
        intended_use="Research on local cases. Not for clinical decisions.",
        limits=("Trained on cases of one site only: expect less on cases of other sites.",),
        license=f"That of its data, {stored.origin['licence']}" if stored.origin else LICENCE,
        data=dict(stored.origin) or {"source": "Local cases"},
    )
    return about, same.id if same else slug(title) or "site-model"


def slug(title: str) -> str:
    return "-".join(re.findall(r"[a-z0-9]+", title.lower()))[:40].strip("-")


def estimate(plan: Plan, stored: StoredSet) -> None:
    """A trial of a few steps on request: time and memory."""
    assert stored.found is not None
    train, val = sizes(stored)
    key = ("estimate", stored.id, str(replace(plan.settings, seed=0)))
    with st.container(horizontal=True, vertical_alignment="center"):
        if st.button("Try a few steps", icon=":material/speed:", help="To estimate time and memory; takes seconds."):
            with st.spinner("A few steps of the real network…"):
                classes = len(next(iter(stored.found.counts.values())))
                state.keep_estimate(key, service.estimate(plan.settings, train, val, classes))
        found = state.estimate(key)
        if found:
            where = "GPU" if found.device == "cuda" else "CPU"
            st.markdown(
                f"About **{duration(found.total_s)}** on the {where} at most, {duration(found.epoch_s)} an epoch, and "
                f"{found.memory_mb / 1024:.1f} GB of memory; then a few minutes for calibration and tests."
            )


def sizes(stored: StoredSet) -> tuple[int, int]:
    """Cases in training and validation, given or as the split will make them."""
    assert stored.found is not None
    labels = {split: sum(row.values()) for split, row in stored.found.planned.items()}
    share = stored.found.pictures / max(1, sum(labels.values()))  # a picture may count for several labels, or none
    return round(share * labels.get("train", 0)), round(share * labels.get("val", 0))


def duration(seconds: float) -> str:
    if seconds < 90:
        return f"{max(1, round(seconds))} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 120 else f"{minutes / 60:.1f} h"


def begin(plan: Plan, stored: StoredSet) -> None:
    with st.container(horizontal=True, vertical_alignment="center"):
        if st.button("Start training", type="primary", icon=":material/play_arrow:"):
            run = service.start(plan, stored.source)
            state.keep_tuning_run(run.id)
            steps.queue(steps.TRAIN)
            st.rerun()
        st.download_button(
            "Save settings", plan.as_json(), file_name="plan.json", mime="application/json", icon=":material/download:",
            help="Load them here again, or run `python -m training run --config plan.json --data … --out …`.",
        )  # fmt: skip
