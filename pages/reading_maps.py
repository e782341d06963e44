"""A guide for clinicians: what each map answers, when it misleads, and what the indicators under it mean."""

import streamlit as st

from medfusion import service
from medfusion.access import READER
from pages.ui import components, login

login.enter(READER)

FIGURE = "pages/ui/known_answer.webp"
NOT_SAID = """
- **A map shows what the model used, not what is wrong.** It can mark healthy tissue because the model compares with
  it, and leave out a finding that the model did not need.
- **A map of a wrong answer looks as convincing as one of a right answer.** Read the scan first, then the answer, then
  the map.
- **Left and right are those of the picture as you look at it**, never the patient's.
- **No positive evidence is an answer too.** A class that nothing in the picture speaks for gets no colours, rather than
  faint ones stretched to look strong.
"""
INDICATORS = {
    "Better than random": "The most marked places are hidden, or shown alone, and so are those of 19 random maps "
    "of the same smoothness. A map that does not beat them all does not show what the answer rests on.",
    "Repeat with other seeds": "LIME draws random numbers. What other seeds might turn round is hatched; the Jaccard "
    "figure is the part of the strongest tenth that two seeds share.",
    "Agreement": "Two methods that look from inside and from outside and mark the same places support each other. "
    "Both can still be wrong in the same way.",
    "Shortcuts": "Borders, background and burned-in text are painted over. If the answer falls with them, the model "
    "may know the hospital rather than the disease.",
    "Not shown for this model": "If the maps of a method stay alike when all weights of the model are randomised, they "
    "show the picture and not the model, and the method is refused.",
    "Your own mask": "Draw where you see the finding and drop it beside the scan: each map is scored against it.",
}
ORDER = """
1. Is the scan one that this model is for, and is the answer sure? If not, no map will mend it.
2. Is the map better than random, and stable?
3. Do two methods agree on the place?
4. Is there a warning about a shortcut?
5. Only then: does the place make sense to you? If it does not, trust your reading.
"""

components.page_head("Reading these maps")
st.markdown(NOT_SAID)

st.subheader("Maps of a known answer", anchor=False)
st.image(
    FIGURE,
    caption="A network learned to find a checkered disc in drawn chest X-rays, beside a plain disc that means nothing. "
    "Each method was asked what its answer rests on. White: where the disc is.",
    alt="The same drawn chest X-ray ten times: alone, and with the map of each method. Most mark the disc.",
)
st.caption(
    "No patient's picture is in this figure. `python -m tests.bench.planted` makes it, and the figures in the README."
)

st.subheader("What each method answers", anchor=False)
st.table(
    {
        "Method": [explainer.title for explainer in service.EXPLAINERS.values()],
        "What it shows": [explainer.meaning for explainer in service.EXPLAINERS.values()],
        "When it misleads": [explainer.misleads for explainer in service.EXPLAINERS.values()],
    }
)

st.subheader("What stands under a map", anchor=False)
for name, meaning in INDICATORS.items():
    st.markdown(f"**{name}.** {meaning}")

st.subheader("In this order", anchor=False)
st.markdown(ORDER)
