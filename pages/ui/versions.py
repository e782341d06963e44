"""What was promoted under a name, the way back, and models to take elsewhere."""

from __future__ import annotations

import streamlit as st

from medfusion import service as models
from medfusion.types import ModelCard
from pages.ui import state
from pages.ui.messages import explained_errors, plain
from training import service
from training.service import Version


def show_versions(model_id: str) -> None:
    """The versions that were promoted here, and a button to go back; nothing where there are none."""
    with explained_errors():
        versions = service.list_versions(model_id)
        if not versions:
            return
        st.subheader(f"Versions of {plain(model_id)}", anchor=False)
        st.table(
            {
                "Version": [plain(one.card.version) for one in versions],
                "In use": ["yes" if one.in_use else "" for one in versions],
                "Promoted (UTC)": [one.promoted[:16].replace("T", " ") for one in versions],
                "AUROC held out": [f"{held_out(one):.3f}" for one in versions],
            }
        )
        said = state.said(model_id)
        if said:
            st.success(plain(said), icon=":material/undo:")
        if any(one.in_use for one in versions):
            st.button("Roll back", icon=":material/undo:", on_click=roll_back, args=(model_id,), key=f"back-{model_id}")


def roll_back(model_id: str) -> None:
    """Callback: use the version before, and say which that is."""
    with explained_errors():
        state.say(model_id, service.roll_back(model_id))


def held_out(version: Version) -> float:
    found = version.card.metrics.get("test") or version.card.metrics["val"]
    return float(found["auroc"]["value"])  # type: ignore[index]


def show_exports(card: ModelCard) -> None:
    """Downloads, made when they are asked for."""
    with st.expander("Take it elsewhere", icon=":material/ios_share:"):
        st.caption(
            "The folder works in another installation of MedFusionNet. ONNX works in other programs: it takes pictures "
            f"of {card.input.width_px} × {card.input.height_px} px as bytes and gives calibrated probabilities."
        )
        with st.container(horizontal=True):
            st.download_button(
                "Folder (zip)", lambda: models.export_folder(card.id), file_name=f"{card.id}-{card.version}.zip",
                mime="application/zip", icon=":material/download:", key=f"folder-{card.id}",
            )  # fmt: skip
            if st.button("Make ONNX", icon=":material/deployed_code:", key=f"onnx-{card.id}"):
                with explained_errors(), st.spinner("Exporting, and asking both the same…"):
                    state.keep_export(card, models.export_onnx(card.id))
        made = state.export(card)
        if made:
            st.download_button(
                "Download ONNX", made.content, file_name=f"{card.id}-{card.version}.onnx",
                mime="application/octet-stream", icon=":material/download:", key=f"onnx-get-{card.id}",
            )  # fmt: skip
            st.caption(f"Checked: on pictures of noise its probabilities differ by at most {made.difference:.1e}.")
