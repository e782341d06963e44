"""A small random model and files of every kind, so that the pages can be tested before and after models ship."""

from __future__ import annotations

import io
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from streamlit.testing.v1 import AppTest
from torch import nn

from medfusion import access, library
from medfusion.explain import EXPLAINERS, faithfulness
from medfusion.explain.lime import LimeSettings
from medfusion.network import build
from medfusion.types import InputSpec, ModelCard, OperatingPoint
from pages.ui import login
from tests.ui.accessible import settle
from tests.ui.browser import address, browser_page  # noqa: F401

ROOT = Path(__file__).resolve().parents[2]
GUIDE = ROOT / "guides" / "pictures"
GUIDE_PX = 1200  # wide, in the guide


@dataclass(frozen=True)
class FewSamples(LimeSettings):
    samples: int = 6  # seconds instead of a minute on a busy machine
    superpixels: int = 12


def make_model(folder: Path, id: str, classes: tuple[str, ...], codes: tuple[str, ...], colour: bool) -> None:
    """A network of random weights that answers differently for different pictures."""
    binary = len(classes) == 2
    card = ModelCard(
        id=id,
        title=f"Test model {id}",
        version="0.0.1",
        size="tiny",
        task="binary" if binary else "multiclass",
        classes=classes,
        modality="Colour fundus photograph" if colour else "Frontal chest X-ray",
        dicom_modalities=codes,
        colour=colour,
        input=InputSpec(),
        temperature=1.0,
        operating_point=OperatingPoint((0.3, 0.7) if binary else (1.0,) * len(classes), "A rule for tests."),
        weights_sha256="",
        intended_use="Tests only.",
        limits=("Its weights are random.",),
        metrics={"test": {"n": 200, "accuracy": {"value": 0.93, "low": 0.9, "high": 0.96}}},
    )
    network = build("tiny", library.outputs_of(card))
    nn.init.normal_(network.head.weight, std=15.0, generator=torch.Generator().manual_seed(0))
    library.save(folder / id, card, network)


@pytest.fixture(scope="session")
def model_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("models")
    make_model(folder, "chest-xray", ("normal", "pneumonia"), ("CR", "DX"), colour=False)
    make_model(folder, "retina", ("normal", "cataract", "glaucoma"), ("OP",), colour=True)
    return folder


@pytest.fixture
def page(model_folder: Path, monkeypatch: pytest.MonkeyPatch) -> AppTest:
    """The app with two random models and a LIME of few samples, not yet run."""
    monkeypatch.delenv("MEDFUSION_MODELS", raising=False)
    monkeypatch.setattr(library, "SHIPPED", model_folder)
    monkeypatch.setitem(EXPLAINERS, "lime", replace(EXPLAINERS["lime"], settings=FewSamples))
    monkeypatch.setattr(faithfulness, "RANDOM_MAPS", 2)
    access.ask_whom(login.at_work)  # as app.py does once in a process
    return AppTest.from_file(str(ROOT / "app.py"), default_timeout=120)


def grey_picture(side_px: int = 240, seed: int = 0) -> np.ndarray:
    """(side, side) uint8: a bright disc on noise."""
    rows, columns = np.mgrid[:side_px, :side_px] / side_px
    disc = 150 * ((rows - 0.5) ** 2 + (columns - 0.6) ** 2 < 0.05)
    return (disc + np.random.default_rng(seed).integers(0, 60, (side_px, side_px))).astype(np.uint8)


def encoded(picture: np.ndarray, file_format: str = "PNG") -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(picture).save(buffer, file_format)
    return buffer.getvalue()


@pytest.fixture
def shot(request: pytest.FixtureRequest) -> Callable[..., None]:
    """Takes a picture of a page for the user guide, when asked to by --guide. Only what may be shown is in view."""

    def take(page, name: str, height_px: int = 1000) -> None:  # type: ignore[no-untyped-def]
        if request.config.getoption("--guide"):
            before = page.viewport_size
            page.set_viewport_size({"width": 1440, "height": height_px})
            page.wait_for_timeout(1500)  # Plotly fits its figure
            settle(page)
            page.wait_for_function("!document.querySelector('[data-testid=stSkeleton]')")
            picture = Image.open(io.BytesIO(page.screenshot()))
            page.set_viewport_size(before)
            picture = picture.resize((GUIDE_PX, round(picture.height * GUIDE_PX / picture.width)), Image.LANCZOS)
            GUIDE.mkdir(parents=True, exist_ok=True)
            picture.save(GUIDE / f"{name}.webp", quality=72, method=6)

    return take


@pytest.fixture
def png() -> Callable[..., bytes]:
    """Makes the bytes of a grey PNG."""
    return lambda seed=0: encoded(grey_picture(seed=seed))


@pytest.fixture
def bad_files() -> dict[str, bytes]:
    """Files that cannot be shown, by name."""
    whole = encoded(grey_picture(), "JPEG")
    return {
        "empty.png": b"",
        "text.png": b"A letter, not a picture.\n" * 20,
        "truncated.jpg": whole[: len(whole) // 3],
        "tiny.png": encoded(np.zeros((1, 1), np.uint8)),
    }
