"""Training end to end on a small generated set, and each of its promises."""

import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image
from torch.optim.swa_utils import AveragedModel

from medfusion import library
from medfusion.__main__ import main as medfusion_command
from medfusion.conformal import SLACK
from medfusion.errors import ConfigError, DataError
from medfusion.explain import EXPLAINERS
from medfusion.inference import answer_indices, class_logits, to_probabilities
from medfusion.labelled import Case, LabelledSet, read_labelled
from medfusion.network import build
from medfusion.types import InputSpec
from tests.train.sides import pictures
from training import augment, balance, finish, folds, loop, memory, sanity
from training import blend as blending
from training.__main__ import main as training_command
from training.blend import EPOCHS, SHARES, blend, is_as_good, mix, shifted_loss, variants
from training.calibrate import data_of
from training.config import TrainConfig
from training.datasets import Augmented, Draw, Order, Pictures, decode, with_splits
from training.run import add_offsets, calibrated, uncalibrated

SMALL = TrainConfig(
    start="scratch", frozen_stages=0, epochs=3, finish_epochs=1, train_px=32, side_px=64, batch_size=8, workers=0,
    device="cpu", average_decay=0.5, patience=10,
)  # fmt: skip


SIDES = ("right", "left")


def test_the_twin_on_shuffled_labels_tells_its_epochs(tmp_path):
    model = library.load("chest-xray", "cpu")
    small = replace(model, card=replace(model.card, input=InputSpec(64, 64)))
    told: list[str] = []
    sanity.shuffled(small, pictures(16, seed=0), replace(SMALL, sanity_epochs=2), told.append)
    assert [words.rsplit(", ", 1)[-1] for words in told] == ["epoch 1 of 2", "epoch 2 of 2"]


def test_the_command_writes_a_model_that_the_other_commands_use(labelled_zip, tmp_path, capsys, monkeypatch):
    out = tmp_path / "sides"
    arguments = ["run", "--data", str(labelled_zip), "--out", str(out), "--runs", str(tmp_path / "runs")]
    small = ["--start", "scratch", "--frozen-stages", "0", "--epochs", "1", "--finish-epochs", "0", "--workers", "0"]
    sizes = ["--train-px", "32", "--side-px", "64", "--batch-size", "8", "--device", "cpu", "--seed", "7"]
    few = ["--seeds", "2", "--sanity-epochs", "1", "--sanity-scans", "2"]
    assert training_command([*arguments, *small, *sizes, *few]) == 0
    card = library.read_card(out)
    assert set(card.training["averaged_seeds"]) <= {7, 8} == {int(seed) for seed in card.metrics["seeds"]}
    assert "- test, accuracy / AUROC: seed 7 " in (out / "README.md").read_text()
    assert card.classes == ("left", "right")
    assert card.training["seed"] == 7
    assert {"train", "val", "test"} == set(card.data["splits"])
    assert card.metrics["test"]["n"] == sum(card.data["splits"]["test"].values())
    assert str(tmp_path) not in (out / "card.json").read_text()
    assert f"accuracy | {card.metrics['val']['accuracy']['value']:.3f}" in (out / "README.md").read_text()

    sane = card.metrics["sanity"]
    assert set(sane["weights"]) == set(sane["labels"]) == set(EXPLAINERS)
    assert all(0 <= value <= 1 for row in sane["weights"].values() for value in row.values())
    assert "Likeness of maps (rank correlation, 2 scans)" in (out / "README.md").read_text()
    again = ["sanity", "--model", str(out), "--data", str(labelled_zip), "--runs", str(tmp_path / "runs")]
    assert training_command([*again, "--sanity-epochs", "0"]) == 0
    after = library.read_card(out)
    assert after.metrics["sanity"]["weights"] == sane["weights"]
    assert "labels" not in after.metrics["sanity"]
    assert after.weights_sha256 == card.weights_sha256
    assert after.metrics["test"] == card.metrics["test"]

    figures = tmp_path / "figures.json"
    assert (
        medfusion_command(["evaluate", "--model", str(out), "--data", str(labelled_zip), "--json", str(figures)]) == 0
    )
    written = json.loads(figures.read_text())
    assert written["n"] == 84
    keys = {"accuracy", "balanced_accuracy", "auroc", "ece", "brier", "per_class", "split"}
    assert keys <= set(written)
    assert "accuracy" in capsys.readouterr().out


def test_calibrating_anew_changes_the_temperature_and_leaves_weights_and_what_does_not_depend_on_it(
    labelled_zip, tmp_path
):
    card = replace(library.read_card(library.find("chest-xray")), id="sides", classes=SIDES, input=InputSpec(64, 64))
    card = replace(card, temperature=9.0, metrics={"robustness": {"n": 12, "mean_drop": 0.1, "drops": {}}})
    card = replace(card, data=data_of(with_splits(read_labelled(labelled_zip))))
    made = library.save(tmp_path / "sides", card, loop.build("tiny", 1))
    again = ["calibrate", "--model", str(tmp_path / "sides"), "--data", str(labelled_zip), "--runs", str(tmp_path)]
    assert training_command(again) == 0
    now = library.read_card(tmp_path / "sides")
    assert now.weights_sha256 == made.weights_sha256
    assert now.temperature != 9.0
    assert now.version > made.version
    assert len(now.set_thresholds) == 2
    assert now.metrics["robustness"] == made.metrics["robustness"]
    told = (tmp_path / "sides" / "README.md").read_text(encoding="utf-8")
    for split in ("val", "test"):
        before = now.metrics[f"{split}_ece_before_temperature"]
        assert before != now.metrics[split]["ece"]["value"]
        assert f"on {split} {before:.3f} before, " in told
    assert now.metrics["val"]["n"] == now.metrics["test"]["n"] == 12
    assert now.training["command"] != made.training["command"]


def test_calibrating_for_another_place_takes_figures_of_the_old_one_off_the_card(labelled_zip, tmp_path):
    card = replace(library.read_card(library.find("chest-xray")), id="sides", classes=SIDES, input=InputSpec(64, 64))
    figures = {"robustness": {"n": 12, "mean_drop": 0.123, "drops": {}}, "seeds": {"0": {}}, "sanity": {"scans": 8}}
    library.save(tmp_path / "sides", replace(card, metrics=figures), loop.build("tiny", 1))
    again = ["calibrate", "--model", str(tmp_path / "sides"), "--data", str(labelled_zip), "--runs", str(tmp_path)]
    assert training_command(again) == 0
    now = library.read_card(tmp_path / "sides")
    assert now.metrics["robustness"]["mean_drop"] != 0.123
    assert "seeds" not in now.metrics
    assert now.metrics["sanity"] == figures["sanity"]
    assert now.data["splits"] == card.data["splits"], "what it was trained on stays said"
    assert now.data["calibrated_on"] == labelled_zip.name
    told = (tmp_path / "sides" / "README.md").read_text(encoding="utf-8")
    assert f"Calibrated and measured on {labelled_zip.name}, which is not what it was trained on:" in told


def test_a_network_that_leans_to_a_class_is_set_upright_unless_offsets_are_declined(monkeypatch):
    scores, labels = answered()
    cases = Pictures(np.zeros((1, 64, 64, 3)), np.zeros(len(labels), int), labels.numpy(), InputSpec(), np.zeros(1))
    card = replace(library.read_card(library.find("retina")), classes=("a", "b", "c"), training={})
    monkeypatch.setattr(loop, "scores", lambda network, *_: scores - 3 * OFFSETS + network.head.bias.detach())
    monkeypatch.setattr(blending, "seen", lambda network, *_: (loop.scores(network), labels))
    for calibration in ("temperature", "offsets"):
        network = build("tiny", 3)
        network.head.bias.data.zero_()
        now = calibrated(card, network, cases, TrainConfig(calibration=calibration), None)
        declined = calibration == "temperature"
        assert bool(now.class_offsets) != declined
        assert network.head.bias.tolist() == pytest.approx([0, 0, 0] if declined else (3 * OFFSETS).tolist(), abs=0.2)
    assert now.class_offsets == pytest.approx(network.head.bias.tolist(), abs=0.01)
    assert now.temperature == pytest.approx(3, rel=0.05)
    again = calibrated(now, network, cases, TrainConfig(), None)
    assert again.class_offsets == now.class_offsets, "there is nothing left to set upright"
    assert again.operating_point == now.operating_point
    fitted = finish.Calibration(torch.tensor(now.class_offsets), 3.0)
    upright = network.head.bias.tolist()
    crossed = folds.Crossed(scores, labels.numpy(), fitted, scores.softmax(1).numpy(), card.operating_point, {})
    assert calibrated(now, network, cases, TrainConfig(), crossed).class_offsets == now.class_offsets
    assert network.head.bias.tolist() == upright, "what the folds ask for is there"
    none = replace(crossed, calibration=finish.Calibration(0 * OFFSETS, 3.0))
    assert calibrated(now, network, cases, TrainConfig(), none).class_offsets == (), (
        "they are gone from the card as well"
    )
    assert network.head.bias.tolist() == pytest.approx([0, 0, 0], abs=0.01)


@pytest.mark.parametrize("task", ["binary", "multiclass", "multilabel"])
def test_a_temperature_can_be_taken_back(task):
    scores = 2 * torch.randn(50, 2, generator=torch.Generator().manual_seed(0))
    card = replace(library.read_card(library.find("chest-xray")), task=task, temperature=0.6)
    told = to_probabilities(scores, task, 0.6).numpy()
    assert uncalibrated(told, card) == pytest.approx(to_probabilities(scores, task).numpy(), abs=1e-5)


def test_calibrating_by_folds_rests_on_cases_that_no_network_saw_and_may_leave_the_old_model_alone(
    labelled_zip, tmp_path
):
    config = {"start": "gone", "frozen_stages": 0, "epochs": 1, "train_px": 64, "side_px": 64, "workers": 0}
    card = replace(library.read_card(library.find("chest-xray")), id="sides", classes=SIDES, input=InputSpec(64, 64))
    made = library.save(tmp_path / "sides", replace(card, training={"config": config}), loop.build("tiny", 1))
    asked = ["calibrate", "--model", str(tmp_path / "sides"), "--data", str(labelled_zip), "--runs", str(tmp_path)]
    assert training_command([*asked, "--folds", "2", "--start", "scratch", "--out", str(tmp_path / "anew")]) == 0
    now = library.read_card(tmp_path / "anew")
    assert (now.id, now.weights_sha256) == ("anew", made.weights_sha256)
    assert now.metrics["cross_validation"]["pooled"]["n"] == 72
    assert "each answered by a network that never saw it" in (tmp_path / "anew" / "README.md").read_text()
    assert library.read_card(tmp_path / "sides") == made


def test_pictures_that_were_changed_are_decoded_anew(tmp_path):
    def decoded():
        return np.array(decode(read_labelled(tmp_path / "set"), InputSpec(32, 32), tmp_path / "pictures.npy"))

    picture = tmp_path / "set" / "a" / "1.png"
    picture.parent.mkdir(parents=True)
    Image.fromarray(np.full((32, 32), 50, np.uint8)).save(picture)
    first, stored = decoded(), (tmp_path / "pictures.npy").stat()
    assert np.array_equal(decoded(), first)
    assert (tmp_path / "pictures.npy").stat() == stored
    Image.fromarray(np.full((32, 32), 200, np.uint8)).save(picture)
    os.utime(picture, ns=(0, 1))  # whatever the clock of this file system resolves
    assert not np.array_equal(decoded(), first)


def fit(train, val, config, folder, resume=False):
    network, trained = loop.started(config, SIDES, "binary")
    return loop.fit(network, train, val, "binary", config, folder, resume, trained=trained)


def test_a_run_that_died_goes_on_to_the_same_weights(tmp_path, monkeypatch):
    train, val = pictures(24, 1), pictures(12, 2)
    whole = fit(train, val, SMALL, tmp_path / "whole").state_dict()
    step = loop.Learner.training_step

    def die(self, batch, index):
        if self.current_epoch == 2:
            raise OSError("power cut")
        return step(self, batch, index)

    monkeypatch.setattr(loop.Learner, "training_step", die)
    with pytest.raises(OSError, match="power cut"):
        fit(train, val, SMALL, tmp_path / "cut")
    epochs = []

    def count(self, batch, index):
        epochs.append(self.current_epoch)
        return step(self, batch, index)

    made, begun = loop.Feed.train_dataloader, []

    def begin(self):
        loader = made(self)
        begun.append(self.order.epoch)
        return loader

    monkeypatch.setattr(loop.Learner, "training_step", count)
    monkeypatch.setattr(loop.Feed, "train_dataloader", begin)
    resumed = fit(train, val, SMALL, tmp_path / "cut", resume=True).state_dict()
    assert set(epochs) == {2}  # nothing is trained again
    assert begun == [2]  # workers draw as soon as they are there
    assert all(torch.equal(whole[name], resumed[name]) for name in whole)
    last, last_resumed = (
        torch.load(tmp_path / run / "checkpoints" / "last.ckpt", weights_only=True)["state_dict"]
        for run in ("whole", "cut")
    )
    assert all(torch.equal(last[name], last_resumed[name]) for name in last)


def test_the_same_seed_gives_the_same_weights_and_another_seed_others(tmp_path):
    train, val = pictures(16, 1), pictures(8, 2)
    config = replace(SMALL, epochs=1, finish_epochs=0)
    first, again, other = (
        fit(train, val, replace(config, seed=seed), tmp_path / str(run)).head.weight
        for run, seed in enumerate((0, 0, 1))
    )
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


def test_the_learning_rate_falls_to_zero_with_the_time_budget_where_that_ends_first(tmp_path, monkeypatch):
    monkeypatch.setattr(loop.Timer, "time_elapsed", lambda *_: 30.0)
    rates, step = [], loop.Learner.training_step

    def watch(self, batch, index):
        rates.append(self.trainer.optimizers[0].param_groups[0]["lr"])
        return step(self, batch, index)

    monkeypatch.setattr(loop.Learner, "training_step", watch)
    config = replace(SMALL, epochs=1, finish_epochs=0, warmup=0.0)
    for minutes, share in ((1.0, 0.5), (2.0, 0.5 * (1 + np.cos(np.pi / 4))), (0.0, 1.0)):
        rates.clear()
        fit(pictures(16, 1), pictures(8, 2), replace(config, minutes=minutes), tmp_path / str(minutes))
        assert rates[0] == pytest.approx(share * config.learning_rate)


@pytest.mark.parametrize("decay", [0.9, 0.995])
def test_the_average_of_weights_lets_go_of_the_first_ones_and_settles_at_its_decay(decay):
    weight = torch.nn.Linear(1, 1, bias=False)
    average = AveragedModel(weight, multi_avg_fn=loop.averaging(decay))
    torch.nn.init.constant_(weight.weight, 100)
    average.update_parameters(weight)
    torch.nn.init.zeros_(weight.weight)
    for _ in range(20):
        average.update_parameters(weight)
    assert average.module.weight.item() < 0.01  # plain averaging would have 12 or 90 left
    average.n_averaged.fill_(1_000_000)
    torch.nn.init.ones_(weight.weight)
    before = average.module.weight.item()
    average.update_parameters(weight)
    assert average.module.weight.item() == pytest.approx(decay * before + 1 - decay, rel=1e-3)


def test_frozen_stages_keep_their_weights_and_batch_statistics(tmp_path):
    learner = loop.Learner(
        loop.build("tiny", 1), "binary", replace(SMALL, start="imagenet", frozen_stages=2), F.cross_entropy
    )
    learner.train()
    assert not any(p.requires_grad for p in learner.network.stem.parameters())
    assert not learner.network.stages[1].training
    assert learner.network.stages[2].training
    assert all(p.requires_grad for p in learner.network.stages[2].parameters())


def test_resume_without_a_checkpoint_says_what_to_do(tmp_path):
    with pytest.raises(ConfigError, match="without --resume"):
        fit(pictures(8, 1), pictures(8, 2), SMALL, tmp_path, resume=True)


@pytest.mark.parametrize(
    ("setting", "value", "said"),
    [
        ("size", "huge", "tiny, small"),
        ("train_px", 100, "multiple of 32"),
        ("epochs", 0, "1 to 2,147"),
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
        Case(f"{p}-{i}.png", ("ill" if p % 3 == 0 else "well",), f"p{p}")
        for p in range(patients)
        for i in range(per_patient)
    )
    return LabelledSet(Path("set"), cases, ("ill", "well"))


OPENCV_FIRST = """
import cv2, numpy as np
from tests.train.sides import pictures
from training import loop
from training.config import TrainConfig
cv2.setNumThreads(4)
cv2.GaussianBlur(np.zeros((2000, 2000), np.uint8), (5, 5), 1)
few = pictures(16, seed=1)
config = TrainConfig(start="scratch", frozen_stages=0, train_px=64, side_px=64, workers=1)
feed = loop.Feed(few, few, config, ("general",), None)
print(sum(len(labels) for _, labels in feed.train_dataloader()))
"""


def test_workers_start_after_opencv_has_worked_in_threads():
    """In a process of its own: OpenCV's threads, told to be more and fewer, end one that has done much else."""
    done = subprocess.run(
        [sys.executable, "-c", OPENCV_FIRST], cwd=Path(__file__).parents[2], capture_output=True, text=True, timeout=280
    )
    assert done.stdout.split()[-1:] == ["16"], done.stderr


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
    with pytest.raises(DataError, match=r"Class 'ill' has 13 cases; 20 of each .* Add 7 to 'ill'\."):
        with_splits(labelled(1, 39), seed=0)


def test_all_classes_with_too_few_cases_are_named_at_once():
    with pytest.raises(DataError, match=r"Class 'ill' has 2 cases, 'well' has 4 cases; .* Add 18 to 'ill', 16 to "):
        with_splits(labelled(1, 6), seed=0)


def test_a_set_of_one_class_is_refused():
    data = labelled(1, 60)
    well = replace(data, cases=tuple(case for case in data.cases if case.label == "well"), classes=("well",))
    with pytest.raises(DataError, match="All cases are 'well'"):
        with_splits(well)


def test_twenty_cases_of_each_class_are_just_enough():
    data = with_splits(labelled(1, 60), seed=0)  # every third is ill
    assert [data.counts()[side]["ill"] for side in ("train", "val", "test")] == [10, 5, 5]


def test_a_class_of_few_patients_is_refused_with_their_number():
    data = labelled(1, 60)
    of_two = [
        replace(case, patient_id=f"p{n % 2}") if case.label == "ill" else case for n, case in enumerate(data.cases)
    ]
    with pytest.raises(DataError, match=r"'ill' has 0 cases in .* All its 20 cases are of 2 patients"):
        with_splits(replace(data, cases=tuple(of_two)), seed=0)


def test_temperature_recovers_the_factor_that_made_logits_overconfident():
    rng = torch.Generator().manual_seed(0)
    honest = torch.randn(20_000, 2, generator=rng) * 2
    labels = torch.multinomial(honest.softmax(1), 1, generator=rng)[:, 0]
    assert finish.fit_temperature(3 * honest, labels) == pytest.approx(3, rel=0.05)


OFFSETS = torch.tensor([1.0, 0.0, -1.0])


def answered(several: bool = False) -> tuple[torch.Tensor, torch.Tensor]:
    """Class logits that are right but for a temperature of 3, and labels drawn by them."""
    rng = torch.Generator().manual_seed(0)
    honest = torch.randn(20_000, 3, generator=rng) * 2
    if several:
        return 3 * honest, (torch.rand(honest.shape, generator=rng) < honest.sigmoid()).long()
    return 3 * honest, torch.multinomial(honest.softmax(1), 1, generator=rng)[:, 0]


@pytest.mark.parametrize("several", [False, True])
def test_offsets_give_back_what_was_taken_from_a_class(several):
    scores, labels = answered(several)
    found = finish.fit_offsets(scores - 3 * OFFSETS, labels, len(labels))
    assert found.tolist() == pytest.approx((3 * OFFSETS).tolist(), abs=0.2)
    assert finish.fit_temperature(scores - 3 * OFFSETS + found, labels) == pytest.approx(3, rel=0.05)


@pytest.mark.parametrize("several", [False, True])
def test_there_are_no_offsets_where_they_gain_no_more_than_chance_would(several):
    scores, labels = answered(several)
    assert not finish.fit_offsets(scores, labels, len(labels)).any()
    few = slice(0, 12)
    assert not finish.fit_offsets(scores[few] - 0.5 * OFFSETS, labels[few], 12).any()
    seen, told = torch.cat([scores[few] - 0.5 * OFFSETS] * 200), torch.cat([labels[few]] * 200)
    assert not finish.fit_offsets(seen, told, 12).any(), "many views of twelve cases are no more than twelve cases"


def test_a_class_that_does_not_occur_on_val_is_not_ruled_out_by_an_offset():
    scores, labels = answered()
    kept = labels != 2
    assert not finish.fit_offsets(scores[kept], labels[kept], int(kept.sum())).any()
    scores, labels = answered(several=True)
    labels[:, 1] = 0
    assert not finish.fit_offsets(scores, labels, len(labels)).any()


@pytest.mark.parametrize(("balance", "weighting"), [("sampler", 0.3), ("none", 0), ("focal", 0)])
def test_rare_classes_keep_in_answers_what_balanced_training_gave_them(balance, weighting):
    config = TrainConfig(balance=balance, class_weighting=0.3)
    assert finish.weighting(OFFSETS, config) == weighting
    assert finish.weighting(0 * OFFSETS, config) == 0, "without offsets they have it still"


def test_thresholds_of_rare_classes_are_lower_as_far_as_training_favours_them():
    probabilities, labels = np.full((100, 2), 0.5), np.array([0] * 80 + [1] * 20)
    point = finish.operating_point(probabilities, labels, "multiclass", 0.5)
    assert point.thresholds == pytest.approx((1, 0.5))
    assert answer_indices(np.array([0.6, 0.4]), point, "multiclass") == (1,)
    even = np.array([0] * 52 + [1] * 48)
    assert finish.operating_point(probabilities, even, "multiclass", 0.5).thresholds == (1, 1), "rarer by chance"


@pytest.mark.parametrize("task", ["binary", "multiclass", "multilabel"])
def test_offsets_are_in_the_answers_of_the_stored_network(task):
    network, offsets = build("tiny", 1 if task == "binary" else 3).eval(), OFFSETS[: 2 if task == "binary" else 3]
    batch = torch.rand(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        before = to_probabilities(class_logits(network(batch), task) + offsets, task)
        add_offsets(network, offsets, task)
        assert torch.allclose(to_probabilities(class_logits(network(batch), task), task), before, atol=1e-3)
    assert torch.equal(library.stored(network)["head.bias"].float(), network.head.bias), "nothing is lost in storing"


def test_operating_point_is_the_highest_threshold_that_keeps_the_sensitivity():
    positive = np.array([0.05, 0.1, 0.3] + [0.5] * 37 + [0.2] * 10)
    labels = np.array([1] * 40 + [0] * 10)
    point = finish.operating_point(np.stack([1 - positive, positive], 1), labels, "binary")
    assert point.thresholds[1] == pytest.approx(0.3 - SLACK)  # two of 40 may be missed: 95 % found
    assert "40 diseased" in point.rule


def test_rare_and_therefore_improbable_cases_are_found_as_well():
    positive, labels = np.array([0.006] * 20 + [0.001] * 80), np.array([1] * 20 + [0] * 80)
    point = finish.operating_point(np.stack([1 - positive, positive], 1), labels, "binary")
    assert [answer_indices(np.array([1 - p, p]), point, "binary")[0] for p in (0.006, 0.001)] == [1, 0]


def test_class_weights_follow_the_inverse_frequency_with_mean_one_over_cases():
    labels = np.array([0] * 10 + [1] * 90)
    scores = torch.zeros(2, 2)
    loss = balance.loss_of("weights", labels, 2, power=1.0, smoothing=0)
    rare, common = (F.cross_entropy(scores, y, torch.tensor([5.0, 5 / 9])) for y in torch.tensor([[0, 1], [1, 1]]))
    assert loss(scores, torch.tensor([0, 1])) == pytest.approx(float(rare))
    assert loss(scores, torch.tensor([1, 1])) == pytest.approx(float(common))
    tilted = torch.tensor([[1.0, 0], [1.0, 0]])
    assert loss(tilted, torch.tensor([0, 1])) == pytest.approx(
        float(F.cross_entropy(tilted, torch.tensor([0, 1]), torch.tensor([9.0, 1.0])))
    )
    assert balance.loss_of("weights", labels, 2, 0.0, 0)(tilted, torch.tensor([0, 1])) == pytest.approx(
        float(F.cross_entropy(tilted, torch.tensor([0, 1])))
    )


def test_logit_adjustment_adds_the_log_frequencies():
    labels = np.array([0] * 10 + [1] * 90)
    scores, y = torch.tensor([[0.3, -0.2], [1.0, 2.0]]), torch.tensor([0, 1])
    loss = balance.loss_of("logit_adjusted", labels, 2, power=1.0, smoothing=0)
    assert loss(scores, y) == pytest.approx(float(F.cross_entropy(scores + torch.tensor([0.1, 0.9]).log(), y)))


def test_focal_loss_by_hand():
    scores = torch.log(torch.tensor([[0.9, 0.1], [0.5, 0.5]]))
    expected = (0.1**2 * -np.log(0.9) + 0.5**2 * -np.log(0.5)) / 2
    assert balance.focal(scores, torch.tensor([0, 1])) == pytest.approx(expected, rel=1e-4)


def test_the_sampler_draws_rare_classes_as_often_at_full_power():
    labels = np.array([0] * 10 + [1] * 90)
    draws = balance.draws(labels, 200, power=1.0)
    assert draws[labels == 0].sum() == pytest.approx(100)
    assert draws[labels == 1].sum() == pytest.approx(100)
    assert balance.draws(labels, 50, power=0.0) == pytest.approx(np.full(100, 0.5))


def test_each_case_is_drawn_as_often_as_it_should_be_rounded_up_or_down():
    wanted = np.repeat([0.3, 1.0, 2.5], 40)
    order = Order(120, wanted, seed=0)
    epochs = []
    for epoch in range(200):
        order.set_epoch(epoch)
        epochs.append(np.bincount([draw.case for draw in order], minlength=120))
    drawn = np.array(epochs)
    assert (drawn.sum(axis=1) == 152).all()
    assert (drawn >= np.floor(wanted)).all() and (drawn <= np.ceil(wanted)).all()
    assert drawn.mean(axis=0) == pytest.approx(wanted, abs=0.15)
    assert len({tuple(row) for row in epochs}) == 200


@pytest.mark.parametrize("name", [name for name in balance.BALANCES if name != "sampler"])
def test_every_balance_trains_and_learns_the_sides(name, tmp_path):
    config = replace(SMALL, balance=name, epochs=1, finish_epochs=0)
    network = fit(pictures(16, 1), pictures(8, 2), config, tmp_path)
    assert all(torch.isfinite(value).all() for value in network.state_dict().values())


@pytest.mark.parametrize("radii", [(50, 50), (32, 50), (70, 50), (80, 80)])  # whole, squashed, cut at the sides, square
def test_the_field_of_another_camera_hides_the_shape_of_this_one(radii):
    picture = cv2.ellipse(np.zeros((100, 100, 3), np.uint8), (50, 50), radii, 0, 0, 360, (90, 60, 30), -1)
    cut, widths = [], []
    for seed in range(60):
        seen = augment.refield(picture, np.random.default_rng(seed)).any(axis=2)
        cut.append(seen[0].mean() > 0.4)
        widths.append(seen.any(axis=0).mean())
    assert 0.15 < np.mean(cut) < 0.6  # whole and cut fields both come of each
    assert min(widths) > 0.9


def test_a_black_picture_has_no_field():
    black = np.zeros((20, 30, 3), np.uint8)
    assert augment.refield(black, np.random.default_rng(0)) is black


def test_a_model_is_a_start_for_another_with_other_classes(labelled_zip, tmp_path):
    small = ["--start", "scratch", "--frozen-stages", "0", "--epochs", "1", "--workers", "0", "--train-px", "32"]
    small += ["--side-px", "64", "--batch-size", "8", "--device", "cpu"]
    first = tmp_path / "first"
    other = tmp_path / "other_set.zip"
    other.write_bytes(labelled_zip.read_bytes())
    command = ["foundation", "--data", str(labelled_zip), str(other), "--draws", "16", "8", "--out", str(first)]
    assert training_command([*command, "--runs", str(tmp_path / "runs"), *small]) == 0
    card = library.read_card(first)
    assert card.classes == ("sides: left", "sides: right", "other-set: left", "other-set: right")
    assert card.role == "foundation"
    assert set(card.metrics["val_by_set"]) == {"sides", "other-set"}
    fresh = loop.build("tiny", 1)
    loop.begin(fresh, str(first))
    foundation = library.load(str(first), "cpu").network.state_dict()
    own = fresh.state_dict()
    assert all(torch.equal(own[name], foundation[name].float()) for name in own if not name.startswith("head."))
    loop.begin(fresh, str(first), ("right", "left"))
    known = foundation["head.weight"].float()
    assert torch.allclose(fresh.head.weight, known[:1] - known[1:2])  # left against right of the set "sides"


def test_the_head_of_a_binary_start_comes_along_for_its_own_classes(tmp_path):
    card = library.read_card(library.find("chest-xray"))
    first = loop.build("tiny", 1, seed=1)
    library.save(tmp_path / "first", card, first)
    weight, bias = (value.half().float() for value in (first.head.weight, first.head.bias))
    for classes, sign in ((card.classes, 1), (card.classes[::-1], -1)):
        fresh = loop.build("tiny", 1, seed=2)
        loop.begin(fresh, str(tmp_path / "first"), classes)
        assert torch.equal(fresh.head.weight, sign * weight)
        assert torch.equal(fresh.head.bias, sign * bias)
    fresh = loop.build("tiny", 1, seed=2)
    loop.begin(fresh, str(tmp_path / "first"), ("benign", "malignant"))
    assert torch.equal(fresh.head.weight, loop.build("tiny", 1, seed=2).head.weight)


def test_rows_of_a_head_are_found_by_name_in_one_set():
    known = ("a: x", "a: y", "b: x", "b: z", "b: w: v")
    assert loop.known_rows(known, ("z", "x")) == [3, 2]
    assert loop.known_rows(known, ("y", "x")) == [1, 0]
    assert loop.known_rows(("z", "x"), ("x", "z")) == [1, 0]
    assert loop.known_rows(known, ("y", "z")) == []  # of two sets
    assert loop.known_rows(known, ("v",)) == [4]


def test_a_blend_is_good_on_val_and_of_those_the_best_on_val_as_augmented(tmp_path):
    val = pictures(12, 2)
    card = library.read_card(library.find("chest-xray"))
    begun = loop.build("tiny", 1, seed=1)
    library.save(tmp_path / "begun", replace(card, input=InputSpec(64, 64)), begun)
    config = replace(SMALL, start=str(tmp_path / "begun"))
    (tmp_path / "checkpoints").mkdir()
    for seed, epoch in ((2, loop.BEST), (3, loop.LAST)):
        state = {f"network.{name}": value for name, value in loop.build("tiny", 1, seed=seed).state_dict().items()}
        torch.save({"state_dict": state}, tmp_path / "checkpoints" / f"{epoch}.ckpt")
    network, labels = loop.build("tiny", 1), torch.from_numpy(val.labels)
    chosen = blend(network, {0: tmp_path}, config, SIDES, val, "binary")

    def losses(epoch, share):
        other = loop.build("tiny", 1)
        mix(other, loop.started(config, SIDES, "binary")[0].state_dict(), loop.weights_of(tmp_path, epoch), share)
        plain = loop.calibrated_losses(loop.scores(other, val, "binary"), labels)
        return plain, shifted_loss(other, variants(val, config, config.train_px), labels, "binary")

    found = {(epoch, share): losses(epoch, share) for epoch in EPOCHS for share in SHARES}
    least = min((plain for plain, _ in found.values()), key=torch.mean)
    good = {one: shifted for one, (plain, shifted) in found.items() if is_as_good(plain, least)}
    assert good[chosen.epoch, chosen.share] == min(good.values())
    expected = begun.stem[0].weight.half().float()  # stored in half precision
    expected = expected.lerp(loop.weights_of(tmp_path, chosen.epoch)["stem.0.weight"], chosen.share)
    assert torch.allclose(network.stem[0].weight, expected, atol=1e-6)


def test_losses_are_as_good_within_the_standard_error_of_their_difference():
    least = torch.tensor([0.0, 1.0, 2.0, 3.0])
    assert is_as_good(least, least)
    assert not is_as_good(least + 0.01, least)  # a little worse in every case is worse
    assert is_as_good(least + torch.tensor([0.5, -0.4, 0.5, -0.4]), least)  # mean 0.05, standard error 0.26


def test_a_start_that_is_no_model_is_refused(tmp_path):
    with pytest.raises(ConfigError, match="or a model by id or folder"):
        replace(SMALL, start=str(tmp_path))


@pytest.mark.parametrize("name", augment.RECIPES)
def test_a_draw_decides_its_variant(name):
    data = Augmented(pictures(2, 0), (augment.RECIPES[name],), 0, lambda epoch: 64 if epoch else 32)
    first, label = data[Draw(1, epoch=1, number=0)]
    assert first.shape == (3, 64, 64)
    assert label == 1
    assert torch.equal(first, data[Draw(1, 1, 0)][0])
    assert not torch.equal(first, data[Draw(1, 1, 1)][0])
    assert not torch.equal(first, data[Draw(1, 2, 0)][0])
    assert data[Draw(1, 0, 0)][0].shape == (3, 32, 32)


def test_the_order_covers_each_case_once_and_changes_each_epoch():
    order = Order(20, None, seed=3)
    first = list(order)
    assert sorted(draw.case for draw in first) == list(range(20))
    order.set_epoch(1)
    assert [draw.case for draw in order] != [draw.case for draw in first]
    often = Order(2, np.array([90.0, 10.0]), seed=0)
    drawn = [draw.case for draw in often]
    assert len(drawn) == len(often) == 100
    assert drawn.count(0) > 70


def test_grey_pictures_stay_grey_in_every_recipe_without_colour():
    rng = np.random.default_rng(0)
    grey = rng.integers(0, 256, (96, 96, 1), dtype=np.uint8).repeat(3, axis=2)
    for recipe in (recipe for recipe in augment.RECIPES.values() if not recipe.saturation):
        for _ in range(20):
            out = augment.augment(grey, recipe, 64, rng).astype(int)
            assert np.ptp(out, axis=2).max() <= 2  # JPEG rounding


def test_without_chance_the_warp_is_a_plain_resize():
    still = augment.Recipe(
        smallest_crop=1, aspect=1, rotation_deg=0, flip_horizontal=0, brightness=0, contrast=0, erase=0, degrade=0
    )
    picture = np.zeros((64, 64, 3), np.uint8)
    picture[16:24, 40:56] = 200
    out = augment.augment(picture, still, 64, np.random.default_rng(0))
    assert np.array_equal(out, picture)
    half = augment.augment(picture, still, 32, np.random.default_rng(0))
    assert half[8:12, 20:28].min() == 200
    assert half.sum() == 200 * 3 * 4 * 8
    mirrored = augment.augment(picture, replace(still, flip_horizontal=1), 64, np.random.default_rng(0))
    assert np.array_equal(mirrored, picture[:, ::-1])
    turned = augment.augment(picture, replace(still, flip_horizontal=1, flip_vertical=1), 64, np.random.default_rng(0))
    assert np.array_equal(turned, picture[::-1, ::-1])


def test_the_allocator_is_asked_to_keep_its_memory_and_may_decline(monkeypatch):
    monkeypatch.setattr(memory.ctypes, "CDLL", lambda _: object())  # a C library without mallopt
    assert memory.keep_memory() is False


def test_answers_come_in_smaller_batches_where_memory_runs_out(monkeypatch):
    network = build("tiny", 1).eval()
    inputs, asked = torch.rand(7, 3, 32, 32), []
    whole = loop.answers(network, inputs.split, "binary")
    forward = network.forward

    def tight(batch):
        asked.append(len(batch))
        if len(batch) > 2:
            raise RuntimeError("DefaultCPUAllocator: can't allocate memory")
        return forward(batch)

    monkeypatch.setattr(network, "forward", tight)
    assert torch.allclose(loop.answers(network, inputs.split, "binary", size=8), whole, atol=1e-5)
    assert asked == [7, 4, 2, 2, 2, 1]
    with pytest.raises(RuntimeError, match="shapes cannot be multiplied"):  # another fault is none of memory
        loop.answers(torch.nn.Linear(5, 1), inputs.split, "binary")
