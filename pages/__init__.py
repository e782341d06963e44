"""Pages. A link straight to one, right after the start, would run it without app.py: Streamlit looks for pages/ itself
until `st.navigation` was called once. Then this run is given up and begun again, through app.py."""

import streamlit as st
from streamlit.runtime.pages_manager import PagesManager

if PagesManager.uses_pages_directory:
    PagesManager.uses_pages_directory = False
    st.rerun()
