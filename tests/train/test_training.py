"""Training end to end on a small generated set, and each of its promises."""

import io
import json
import zipfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from medfusion import library
from medfusion.__main__ import main as medfusion_command
from medfusion.errors import ConfigError, DataError
from medfusion.labelled import Case, LabelledSet
from medfusion.types import InputSpec
from training import augment, finish, loop
from training.__main__ import main as training_command
from training.config import TrainConfig
from training.datasets import Pictures, with_splits

SMALL = TrainConfig(
    start="scratch", frozen_stages=0, epochs=3, finish_epochs=1, train_px=32, side_px=64, batch_size=8, workers=0,
    device="cpu", average_decay=0.5, patience=10,
)  # fmt: skip


def pictures(count: int, seed: int) -> Pictures:
    """Bright left half is class 1, bright right half class 0."""
    rng = np.random.default_rng(seed)
    labels = np.arange(count) % 2
    frames = rng.integers(0, 60, (count, 64, 64, 3), dtype=np.uint8)
    for frame, label in zip(frames, labels, strict=True):
        frame[:, slice(0, 32) if label else slice(32, 64)] += 150
    return Pictures(frames, labels.astype(np.int64), InputSpec(64, 64))


@pytest.fixture
def labelled_zip(tmp_path) -> Path:
    path = tmp_path / "sides.zip"
    data = pictures(84, seed=1)
    with zipfile.ZipFile(path, "w") as archive:
        for index, (frame, label) in enumerate(zip(data.pictures, data.labels, strict=True)):
            out = io.BytesIO()
            Image.fromarray(frame).save(out, "PNG")
            archive.writestr(f"{'left' if label else 'right'}/{index}.png", out.getvalue())
    return path


def test_the_command_writes_a_model_that_the_other_commands_use(labelled_zip, tmp_path, capsys):
    out = tmp_path / "sides"
    arguments = ["run", "--data", str(labelled_zip), "--out", str(out), "--runs", str(tmp_path / "runs")]
    small = ["--start", "scratch", "--frozen-stages", "0", "--epochs", "1", "--finish-epochs", "0", "--workers", "0"]
    sizes = ["--train-px", "32", "--side-px", "64", "--batch-size", "8", "--device", "cpu", "--seed", "7"]
    assert training_command(arguments + small + sizes) == 0
    card = library.read_card(out)
    assert card.classes == ("left", "right")
    assert card.training["seed"] == 7
    assert {"train", "val", "test"} == set(card.data["splits"])
    assert card.metrics["test"]["n"] == sum(card.data["splits"]["test"].values())
    assert str(tmp_path) not in (out / "card.json").read_text()
    assert f"accuracy | {card.metrics['val']['accuracy']['value']:.3f}" in (out / "README.md").read_text()

    figures = tmp_path / "figures.json"
    assert (
        medfusion_command(["evaluate", "--model", str(out), "--data", str(labelled_zip), "--json", str(figures)]) == 0
    )
    written = json.loads(figures.read_text())
    assert written["n"] == 84
    keys = {"accuracy", "balanced_accuracy", "auroc", "ece", "brier", "per_class", "split"}
    assert keys <= set(written)
    assert "accuracy" in capsys.readouterr().out


def test_a_run_that_died_goes_on_to_the_same_weights(tmp_path, monkeypatch):
    train, val = pictures(24, 1), pictures(12, 2)
    whole = loop.fit(train, val, 2, "binary", SMALL, tmp_path / "whole").state_dict()
    step = loop.Learner.training_step

    def die(self, batch, index):
        if self.current_epoch == 2:
            raise OSError("power cut")
        return step(self, batch, index)

    monkeypatch.setattr(loop.Learner, "training_step", die)
    with pytest.raises(OSError, match="power cut"):
        loop.fit(train, val, 2, "binary", SMALL, tmp_path / "cut")
    epochs = []

    def count(self, batch, index):
        epochs.append(self.current_epoch)
        return step(self, batch, index)

    monkeypatch.setattr(loop.Learner, "training_step", count)
    resumed = loop.fit(train, val, 2, "binary", SMALL, tmp_path / "cut", resume=True).state_dict()
    assert set(epochs) == {2}  # nothing is trained again
    assert all(torch.equal(whole[name], resumed[name]) for name in whole)


def test_the_same_seed_gives_the_same_weights_and_another_seed_others(tmp_path):
    train, val = pictures(16, 1), pictures(8, 2)
    config = replace(SMALL, epochs=1, finish_epochs=0)
    first, again, other = (
        loop.fit(train, val, 2, "binary", replace(config, seed=seed), tmp_path / str(run)).head.weight
        for run, seed in enumerate((0, 0, 1))
    )
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


def test_frozen_stages_keep_their_weights_and_batch_statistics(tmp_path):
    learner = loop.Learner(
        loop.build("tiny", 1), "binary", replace(SMALL, start="imagenet", frozen_stages=2), torch.ones(2)
    )
    learner.train()
    assert not any(p.requires_grad for p in learner.network.stem.parameters())
    assert not learner.network.stages[1].training
    assert learner.network.stages[2].training
    assert all(p.requires_grad for p in learner.network.stages[2].parameters())


def test_resume_without_a_checkpoint_says_what_to_do(tmp_path):
    with pytest.raises(ConfigError, match="without --resume"):
        loop.fit(pictures(8, 1), pictures(8, 2), 2, "binary", SMALL, tmp_path, resume=True)


@pytest.mark.parametrize(
    ("setting", "value", "said"),
    [
        ("size", "huge", "tiny, small"),
        ("train_px", 100, "multiple of 32"),
        ("epochs", 0, "1 or more"),
        ("learning_rate", 3.0, "between 0 and 1"),
        ("augmentation", "swirl", "radiograph"),
        ("frozen_stages", 9, "0 to 5"),
    ],
)
def test_a_wrong_setting_is_refused_before_any_work(setting, value, said):
    with pytest.raises(ConfigError, match=said):
        replace(SMALL, **{setting: value})


def labelled(per_patient: int, patients: int) -> LabelledSet:
    cases = tuple(
        Case(f"{p}-{i}.png", "ill" if p % 3 == 0 else "well", f"p{p}")
        for p in range(patients)
        for i in range(per_patient)
    )
    return LabelledSet(Path("set"), cases, ("ill", "well"))


def test_a_split_keeps_patients_apart_and_classes_in_proportion():
    data = with_splits(labelled(3, 70), seed=0)
    sides = {}
    for case in data.cases:
        sides.setdefault(case.patient_id, set()).add(case.split)
    assert all(len(splits) == 1 for splits in sides.values())
    for counts in data.counts().values():
        assert counts["ill"] / sum(counts.values()) == pytest.approx(1 / 3, abs=0.12)
    assert data == with_splits(labelled(3, 70), seed=0)
    assert data != with_splits(labelled(3, 70), seed=1)


def test_too_few_cases_are_refused_with_the_class():
    with pytest.raises(DataError, match="smallest class has 2 cases"):
        with_splits(labelled(1, 6), seed=0)


def test_temperature_recovers_the_factor_that_made_logits_overconfident():
    rng = torch.Generator().manual_seed(0)
    honest = torch.randn(20_000, 2, generator=rng) * 2
    labels = torch.multinomial(honest.softmax(1), 1, generator=rng)[:, 0]
    assert finish.fit_temperature(3 * honest, labels) == pytest.approx(3, rel=0.05)


def test_operating_point_is_the_highest_threshold_that_keeps_the_sensitivity():
    positive = np.array([0.05, 0.1, 0.3] + [0.5] * 37 + [0.2] * 10)
    labels = np.array([1] * 40 + [0] * 10)
    point = finish.operating_point(np.stack([1 - positive, positive], 1), labels, "binary")
    assert point.thresholds[1] == pytest.approx(0.3)  # two of 40 may be missed: 95 % found
    assert "40 diseased" in point.rule


def test_class_weights_follow_the_inverse_frequency_with_mean_one_over_cases():
    labels = np.array([0] * 10 + [1] * 90)
    weights = loop.class_weights(labels, 2, replace(SMALL, class_weighting=1.0))
    assert weights.tolist() == pytest.approx([5.0, 5 / 9])
    assert loop.class_weights(labels, 2, replace(SMALL, class_weighting=0.0)).tolist() == pytest.approx([1, 1])


@pytest.mark.parametrize("name", augment.RECIPES)
def test_augmentation_keeps_pictures_and_differs_each_time(name):
    torch.manual_seed(0)
    transform = augment.build(augment.RECIPES[name], 64)
    picture = torch.from_numpy(pictures(1, 0).pictures[0]).permute(2, 0, 1)
    first, second = transform(picture), transform(picture)
    assert first.shape == (3, 64, 64)
    assert first.dtype == torch.uint8
    assert not torch.equal(first, second)


def test_grey_pictures_stay_grey_in_every_recipe_without_colour():
    torch.manual_seed(0)
    grey = torch.randint(0, 256, (1, 96, 96), dtype=torch.uint8).repeat(3, 1, 1)
    transform = augment.build(augment.RECIPES["radiograph"], 64)
    for _ in range(20):
        out = transform(grey).int()
        assert (out.amax(0) - out.amin(0)).max() <= 2  # JPEG rounding
