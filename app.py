"""Starts MedFusionNet: page settings and navigation, nothing else."""

from pathlib import Path

import streamlit as st

st.set_page_config(page_title="MedFusionNet", page_icon="pages/ui/icon.svg", layout="wide")

st.html(Path(__file__).parent / "pages" / "ui" / "page.css")
page = st.navigation(
    [
        st.Page("pages/analyse.py", title="Analyse", icon=":material/search_insights:", default=True),
        st.Page("pages/worklist.py", title="Worklist", icon=":material/lists:"),
        st.Page("pages/fine_tune.py", title="Fine-tune", icon=":material/model_training:"),
        st.Page("pages/model_library.py", title="Model library", icon=":material/library_books:"),
        st.Page("pages/system.py", title="System", icon=":material/settings_heart:"),
        st.Page("pages/reading_maps.py", title="Reading these maps", icon=":material/menu_book:"),
    ],
    position="top",
)
with st.spinner("Starting…"):  # the first visit loads PyTorch
    import pages.ui.components  # noqa: F401
page.run()
