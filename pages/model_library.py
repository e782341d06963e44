"""The models of this installation, each with a card that a clinician can read."""

import streamlit as st

from medfusion import service
from medfusion.access import READER
from pages.ui import cards, components, login, own_data, resources, versions
from pages.ui.messages import explained_errors, plain

login.enter(READER)

components.page_head("Model library")

with explained_errors():
    models = resources.cards()
    for problem in service.model_problems():
        st.warning(plain(problem), icon=":material/warning:")
    if not models:
        st.info("No model is installed. Put one into the folder models, or train one.", icon=":material/help:")
        st.stop()
    card = cards.choose(models | resources.cards("foundation"))
    cards.show_card(card)
    if card.role == "diagnosis":
        own_data.measure_own_data(card)
        versions.show_versions(card.id)
        versions.show_exports(card)
