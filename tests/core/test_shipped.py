"""The models that come with the program: whole, honest about themselves, and as the README says."""

from pathlib import Path

import pytest

from medfusion import library, service
from training.readme import readme

ROOT = Path(__file__).parents[2]
CARDS = {
    card.id: card
    for card in map(library.read_card, sorted(path.parent for path in library.SHIPPED.glob("*/card.json")))
}


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


@pytest.mark.parametrize("sample", [s for s in service.list_samples() if s.model_id], ids=lambda s: s.id)
def test_a_sample_with_its_model_gives_an_answer_without_a_warning(sample):
    prediction = service.predict(service.load_model(sample.model_id), service.read_sample(sample.id))
    assert sum(prediction.probabilities) == pytest.approx(1, abs=1e-5)
    assert not prediction.warnings
