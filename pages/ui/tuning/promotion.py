"""Step 6: the new model in use, or not; and back again."""

from __future__ import annotations

import streamlit as st

from pages.ui.messages import explained_errors, plain
from pages.ui.tuning import steps
from pages.ui.versions import show_versions
from training import service
from training.service import Run


def show() -> None:
    run = steps.needs_run("Promotion")
    if run is None:
        return
    if run.status != "done":
        st.info("A model can be promoted once its run is done.", icon=":material/help:")
        steps.button("See the run", steps.TRAIN)
        return
    st.markdown(f"**{plain(run.plan.about.title)}**")
    model_id, reason = ask(run)
    if st.button("Promote", type="primary", icon=":material/publish:", disabled=not model_id):
        with explained_errors():
            card = service.promote(run.id, model_id, reason)
            st.success(
                f"{plain(card.id)} {plain(card.version)} is in use: on the Analyse page and in the Model library.",
                icon=":material/check_circle:",
            )
    if model_id:
        show_versions(model_id)


def ask(run: Run) -> tuple[str, str]:
    """The name, and a reason where something speaks against promotion."""
    result = service.result_of(run)
    same = result.get("parent_id")
    choices = {"replace": f"In place of {same}"} if same else {}
    choices["new"] = "As a model of its own, beside the others"
    where = st.radio("How?", list(choices), format_func=choices.__getitem__, key=f"promote-{run.id}")
    model_id = str(same) if where == "replace" else named(run)
    reason, against = "", service.objections(run, model_id)
    if against:
        st.warning(
            "\n".join(f"- {plain(words)}" for words in against), title="This speaks against it", icon=":material/block:"
        )
        reason = st.text_area(
            "Promote all the same? Write down why.", max_chars=500, key=f"promote-reason-{run.id}",
            help=f"At least {service.SHORTEST_REASON} characters. It stays on the model's card.",
        )  # fmt: skip
    elif result["verdict"] == "alike":
        st.info(
            f"Nothing speaks against it, but it is not shown to be better than {plain(str(same))} either.",
            icon=":material/trending_flat:",
        )
    else:
        st.success("Nothing speaks against it: ranking, accuracy and maps hold.", icon=":material/check_circle:")
    return model_id, reason


def named(run: Run) -> str:
    wanted = service.next_model_id(run.plan.model_id)
    return st.text_input(
        "Name", wanted, max_chars=60, help="Small letters, digits and hyphens.", key=f"promote-name-{run.id}"
    )
