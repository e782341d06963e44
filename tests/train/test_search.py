"""The search for settings: what it tries, that it goes on after a kill, and that it ends where it is told."""

from dataclasses import replace

import pytest

from medfusion.errors import ConfigError
from medfusion.labelled import read_labelled
from medfusion.types import InputSpec
from tests.train.test_jobs import SMALL
from training import events, loop, search
from training.datasets import decode, pictures_of, with_splits
from training.watch import Watch

SPEC = InputSpec(64, 64)
FOUR = replace(SMALL, trials=4, epochs=2)


@pytest.fixture
def parts(labelled_zip, tmp_path):
    data = with_splits(read_labelled(labelled_zip), 0)
    pictures = decode(data, SPEC, tmp_path / "pictures.npy")
    train, val = (pictures_of(data, pictures, split, data.classes, SPEC) for split in ("train", "val"))
    return train, val, data.classes, "binary"


@pytest.fixture
def losses(monkeypatch):
    """Instead of training, a loss on val that is least at a learning rate of .001; the rates that were tried."""
    tried = []

    def fit(network, train, val, task, config, folder, trained, watch):
        tried.append(config.learning_rate)
        watch.least = abs(config.learning_rate - 1e-3) + 0.1 * config.label_smoothing
        return network

    monkeypatch.setattr(loop, "fit", fit)
    return tried


def test_the_given_settings_come_first_and_nothing_worse_is_chosen(parts, losses, tmp_path):
    config = replace(FOUR, trials=12)
    chosen, found = search.search(config, *parts, tmp_path)
    assert losses[0] == config.learning_rate
    assert len(losses) == found["trials"] == 12
    assert found["val_loss"] <= found["val_loss_as_given"]
    assert (chosen.learning_rate, chosen.epochs) == (found["settings"]["learning_rate"], config.epochs)
    assert not list((tmp_path / "trials").iterdir())


def test_a_search_goes_on_where_it_was_killed_and_stops_when_told(parts, losses, tmp_path):
    watch = Watch(tmp_path, tmp_path / "stop")
    search.search(replace(FOUR, trials=2), *parts, tmp_path, watch)
    search.search(FOUR, *parts, tmp_path, watch)
    assert len(losses) == 4
    watch.stop.touch()
    chosen, _ = search.search(replace(FOUR, trials=9), *parts, tmp_path, watch)
    assert len(losses) == 4
    assert chosen.learning_rate in losses
    told = [event for event in events.read_events(tmp_path) if event["kind"] == "trial"]
    assert [event["number"] for event in told] == [0, 1, 2, 3]


def test_trials_train_for_real_and_are_judged_on_val(parts, tmp_path):
    chosen, found = search.search(replace(FOUR, trials=2), *parts, tmp_path)
    assert 0 < found["val_loss"] < 2
    assert chosen.trials == 2


def test_a_search_that_goes_on_draws_anew_and_tries_the_given_settings_if_it_was_killed_in_them(
    parts, losses, tmp_path, monkeypatch
):
    def kill(*_, **__):
        raise KeyboardInterrupt

    learning, config = loop.fit, replace(FOUR, trials=5)
    monkeypatch.setattr(loop, "fit", kill)
    with pytest.raises(KeyboardInterrupt):
        search.search(config, *parts, tmp_path)
    monkeypatch.setattr(loop, "fit", learning)
    search.search(replace(config, trials=2), *parts, tmp_path)
    _, found = search.search(config, *parts, tmp_path)
    assert config.learning_rate in losses
    assert found["val_loss_as_given"] == pytest.approx(abs(config.learning_rate - 1e-3) + 0.1 * config.label_smoothing)
    assert len(set(losses)) == len(losses) == 5


def test_a_trial_whose_loss_is_no_number_does_not_end_the_search(parts, losses, tmp_path, monkeypatch):
    learning = loop.fit

    def fit(network, train, val, task, config, folder, trained, watch):
        if config.learning_rate == FOUR.learning_rate:
            raise ConfigError("The loss is no longer a number.")
        return learning(network, train, val, task, config, folder, trained=trained, watch=watch)

    monkeypatch.setattr(loop, "fit", fit)
    chosen, found = search.search(FOUR, *parts, tmp_path)
    assert found["trials"] == 4
    assert chosen.learning_rate != FOUR.learning_rate
    (tmp_path / "other").mkdir()
    only, found = search.search(replace(FOUR, trials=1), *parts, tmp_path / "other")
    assert (only, found["trials"]) == (replace(FOUR, trials=1), 1)
