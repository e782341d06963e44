"""The models that come with the program: whole, honest about themselves, and as the README says."""

from pathlib import Path

import cv2
import numpy as np
import pytest
import skimage.data
import torch
from sklearn.datasets import load_sample_images

from medfusion import library, router, service
from medfusion.imaging import display
from medfusion.network import build
from medfusion.samples import MISTAKEN
from training.loop import begin
from training.readme import readme

ROOT = Path(__file__).parents[2]
SHIPPED = {
    card.id: card
    for card in map(library.read_card, sorted(path.parent for path in library.SHIPPED.glob("*/card.json")))
}
CARDS = {id: card for id, card in SHIPPED.items() if card.role == "diagnosis"}


def test_the_models_of_the_samples_are_shipped():
    assert {sample.model_id for sample in service.list_samples()} - {""} <= set(CARDS)


@pytest.mark.parametrize("card", CARDS.values(), ids=CARDS)
def test_a_shipped_model_loads_and_says_what_a_reader_must_know(card):
    assert service.load_model(card.id).card == card  # its weights have the checksum of the card
    assert card.limits
    assert card.data["citation"]
    assert card.data["licence"]
    assert card.training["command"].startswith("python -m training run")
    assert card.temperature != 1
    for split in ("val", "test"):
        figures = card.metrics[split]
        assert figures["n"] == sum(card.data["splits"][split].values())
        assert 0 <= figures["ece"]["low"] < figures["ece"]["high"]  # resamples overstate it
        for name in ("accuracy", "balanced_accuracy", "auroc", "brier"):
            assert figures[name]["low"] <= figures[name]["value"] <= figures[name]["high"]
    assert (library.SHIPPED / card.id / library.WEIGHTS).stat().st_size < 8 * 2**20


@pytest.mark.parametrize("card", CARDS.values(), ids=CARDS)
def test_readmes_hold_the_figures_of_the_card(card):
    assert (library.SHIPPED / card.id / "README.md").read_text(encoding="utf-8") == readme(card)
    row = next(line for line in (ROOT / "README.md").read_text(encoding="utf-8").splitlines() if f"[{card.id}]" in line)
    for name in ("accuracy", "auroc"):
        assert f"{card.metrics['test'][name]['value']:.3f}" in row


def test_the_foundation_is_a_start_and_no_diagnosis():
    card = SHIPPED["foundation"]
    assert card.role == "foundation"
    assert (library.SHIPPED / card.id / "README.md").read_text(encoding="utf-8") == readme(card)
    fresh = build(card.size, 1)
    begin(fresh, str(library.SHIPPED / card.id), ("normal", "pneumonia"))
    known = service.load_model(card.id).network.state_dict()
    assert all(torch.equal(fresh.state_dict()[name], known[name]) for name in known if not name.startswith("head."))


@pytest.fixture(scope="module")
def known() -> router.Router:
    found = router.load()
    assert set(found.known) == set(CARDS)  # each was made with the foundation that is shipped
    return found


def test_photographs_and_noise_are_refused(known):
    rng = np.random.default_rng(0)
    pictures = [getattr(skimage.data, name)() for name in ("astronaut", "coffee", "chelsea", "camera", "coins", "page")]
    pictures += load_sample_images().images
    pictures += [cv2.resize(rng.integers(0, 256, (s, s, 3), dtype=np.uint8), (224, 224)) for s in (4, 16, 64, 224)]
    pictures += [np.full((224, 224), level, np.uint8) for level in (0, 128, 255)]
    accepted = [route.model_id for route in map(known.route, pictures) if route.model_id]
    assert not accepted


def test_a_fundus_photograph_from_elsewhere_finds_its_model(known):
    assert known.route(display(service.read_sample("fundus"))).model_id == "retina"


@pytest.mark.parametrize("sample", [s for s in service.list_samples() if s.model_id], ids=lambda s: s.id)
def test_a_sample_with_its_model_gives_an_answer_without_a_warning(sample, known):
    scan = service.read_sample(sample.id)
    prediction = service.predict(service.load_model(sample.model_id), scan, route=known.route(display(scan)))
    assert sum(prediction.probabilities) == pytest.approx(1, abs=1e-5)
    assert not prediction.warnings


def test_a_sample_that_its_model_gets_wrong_says_so():
    prediction = service.predict(service.load_model("retina"), service.read_sample("fundus"))
    assert (MISTAKEN in service.read_sample("fundus").notes) == (prediction.answers != ("normal",))
