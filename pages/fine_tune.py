"""Fine-tune a model on local cases: data, check, settings, training, result, promotion, one step after the other."""

import streamlit as st

from medfusion.access import TRAINER
from pages.ui import components, login, tuning
from pages.ui.messages import explained_errors

login.enter(TRAINER)

components.page_head("Fine-tune on your own cases")
step = tuning.steps.choose()
with explained_errors():
    tuning.STEPS[step]()
st.divider()
with explained_errors():
    tuning.runs.show_runs()
