"""What a run is asked to do and what it tells: both are files, and both survive what happens to files."""

import argparse
import json
from dataclasses import asdict, replace

import pytest
import torch

from medfusion import library
from medfusion.errors import ConfigError, DataError
from tests.train.sides import pictures
from training import events, loop, run
from training.__main__ import main as training_command
from training.config import TrainConfig
from training.events import Journal, read_events
from training.finish import About
from training.plan import Plan, read_plan, settings_from, write_plan
from training.watch import Watch

SMALL = TrainConfig(
    start="scratch", frozen_stages=0, epochs=2, train_px=32, side_px=64, batch_size=8, workers=0, device="cpu",
    average_decay=0.5, sanity_scans=0,
)  # fmt: skip
ABOUT = About(
    "Pneumonie – 肺炎", "X-ray", ("DX", "CR"), False, "radiograph", ("right", "left"), "Research.", ("One site.",),
    "CC0", {"source": "Local cases"},
)  # fmt: skip
PLAN = Plan("sides", replace(SMALL, learning_rate=0.001, minutes=2.0), ABOUT, ("left/1.png", "größe/2.png"))


def given(**changes) -> str:
    """A plan as a file, with some of its fields changed."""
    return json.dumps(json.loads(PLAN.as_json()) | changes)


def test_a_plan_is_read_as_it_was_written(tmp_path):
    write_plan(tmp_path / "plan.json", PLAN)
    text = (tmp_path / "plan.json").read_text(encoding="utf-8")
    assert read_plan(text) == PLAN
    assert "肺炎" in text  # a person may read it, too


def test_settings_that_a_plan_does_not_name_are_the_defaults():
    assert read_plan(given(settings={"epochs": 7})).settings == TrainConfig(epochs=7)
    assert read_plan(given(settings={})).settings == TrainConfig()
    without = {name: value for name, value in json.loads(PLAN.as_json()).items() if name != "left_out"}
    assert read_plan(json.dumps(without)).left_out == ()


@pytest.mark.parametrize(
    ("words", "start"),
    [("", "foundation"), ("--size small", "imagenet"), ("--start scratch --frozen-stages 0", "scratch")],
)
def test_a_run_starts_from_the_foundation_where_that_fits(words, start):
    parser = argparse.ArgumentParser()
    run.add_arguments(parser)
    plan = run.plan_from(parser.parse_args(["--data", "sides.zip", "--out", "models/sides", *words.split()]))
    assert plan.settings.start == start


def test_a_run_starts_from_imagenet_where_no_foundation_is_installed(monkeypatch):
    monkeypatch.setattr(library, "list_cards", lambda: [])
    assert run.usual_start("tiny") == "imagenet"


def test_a_whole_number_will_do_for_a_setting_with_a_fraction():
    assert settings_from({"minutes": 5}).minutes == 5
    assert settings_from({"warmup": 0}).warmup == 0


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"epoch": 7}, "There is no setting 'epoch'. Known: size, start, epochs"),
        ({"epochs": "7"}, "epochs is '7'. It must be of type int"),
        ({"epochs": 7.5}, "epochs is 7.5. It must be of type int"),
        ({"epochs": None}, "epochs is None. It must be of type int"),
        ({"epochs": True}, "epochs is True. It must be of type int"),
        ({"learning_rate": True}, "learning_rate is True. It must be of type float"),
        ({"learning_rate": "fast"}, "learning_rate is 'fast'. It must be of type float"),
        ({"start": 3}, "start is 3. It must be of type str"),
        ({"augmentation": ["general"]}, "It must be of type str"),
        ({"epochs": 0}, "epochs is 0. Choose 1 to 2,147,483,647"),
        ({"start": "no-such-model"}, "start is 'no-such-model'. Choose imagenet, scratch"),
        ({"minutes": float("nan")}, "minutes is nan"),
        ({"minutes": float("inf")}, "minutes is inf"),
        ({"minutes": 1e300}, "minutes is 1e"),
        ({"learning_rate": float("nan")}, "learning_rate is nan"),
        ({"label_smoothing": 1.1}, "label_smoothing is 1.1. Choose a value from 0 to 1"),
        ({"average_decay": -0.1}, "average_decay is -0.1. Choose a value from 0 to 1"),
        ({"weight_decay": float("nan")}, "weight_decay is nan. Choose 0 to 2,147,483,647"),
        ({"seed": 2**31}, "seed is 2147483648. Choose 0 to 2,147,483,647"),
        ({"epochs": 10**400}, "Choose 1 to 2,147,483,647"),
        ({"seed": -1}, "seed is -1. Choose 0 to 2,147,483,647"),
    ],
)
def test_a_setting_that_is_unknown_or_wrong_is_named_in_a_sentence(settings, said):
    with pytest.raises(ConfigError, match=said):
        read_plan(given(settings=settings))


@pytest.mark.parametrize(
    "text",
    [
        "", "{", "[]", "null", "7", '"plan"', "{}", "{\"model_id\": \"sides\"}",
        given(settings=[]), given(settings=None), given(settings="fast"),
        given(about={}), given(about=[]), given(about=None), given(about={"title": "x", "colour_of_hair": "red"}),
        given(left_out=7), given(left_out=None),
    ],
)  # fmt: skip
def test_what_is_no_plan_is_refused_in_a_sentence(text):
    with pytest.raises(ConfigError, match=r"not the settings of a run .* Save them again from a run"):
        read_plan(text)


def test_a_plan_as_a_file_makes_the_same_weights_as_flags(labelled_zip, tmp_path, capsys):
    config = replace(SMALL, epochs=1, seed=3, learning_rate=2e-3, balance="none")
    plain = Plan("elsewhere", config, About("Elsewhere"))
    write_plan(tmp_path / "plan.json", plain)
    write_plan(tmp_path / "less.json", replace(plain, left_out=("left/1.png", "right/2.png")))
    write_plan(tmp_path / "other.json", replace(plain, settings=replace(config, seed=4)))
    default = asdict(TrainConfig())
    flags = [
        word
        for name, value in asdict(config).items()
        if value != default[name]
        for word in (f"--{name.replace('_', '-')}", str(value))
    ]

    def made(name: str, *words: str):
        out = tmp_path / name
        common = ["run", "--data", str(labelled_zip), "--out", str(out), "--runs", str(tmp_path / "runs")]
        assert training_command([*common, *words]) == 0, capsys.readouterr().err
        return library.read_card(out)

    by_flags = made("by-flags", *flags)
    by_plan = made("by-plan", "--config", str(tmp_path / "plan.json"))
    both = made("both", "--config", str(tmp_path / "other.json"), "--seed", "3")
    less = made("less", "--config", str(tmp_path / "less.json"))
    assert by_plan.weights_sha256 == by_flags.weights_sha256
    assert by_plan.training["config"] == by_flags.training["config"]
    assert both.weights_sha256 == by_flags.weights_sha256  # the command line has the last word
    assert less.weights_sha256 != by_flags.weights_sha256
    assert (by_plan.data["left_out"], less.data["left_out"]) == (0, 2)
    assert sum(sum(row.values()) for row in less.data["splits"].values()) == 82
    assert (by_plan.id, by_plan.title) == ("by-plan", "Elsewhere")  # named after the folder, told as in the plan


@pytest.mark.parametrize("content", [b"{", b"\xff\xfe", None])
def test_a_plan_that_cannot_be_read_ends_the_command_with_a_sentence(content, labelled_zip, tmp_path, capsys):
    plan = tmp_path / "plan.json"
    if content is not None:
        plan.write_bytes(content)
    words = ["run", "--data", str(labelled_zip), "--out", str(tmp_path / "out"), "--config", str(plan)]
    assert training_command(words) == 2
    said = capsys.readouterr().err
    assert said.startswith("error: ")
    assert "Traceback" not in said
    assert not (tmp_path / "out").exists()


def test_what_a_run_tells_is_read_in_order_with_its_figures(tmp_path):
    journal = Journal(tmp_path)
    assert read_events(tmp_path) == []
    journal.tell("phase", text="Größe\u2028lesen")
    journal.tell("epoch", epoch=0, val_loss=0.5)
    told = read_events(tmp_path)
    assert [(event["kind"], event.get("text"), event.get("val_loss")) for event in told] == [
        ("phase", "Größe\u2028lesen", None),
        ("epoch", None, 0.5),
    ]
    assert told[0]["at"] <= told[1]["at"]
    assert events.last(told, "phase") == told[0]
    assert events.last(told, "begin") is None


def test_a_last_line_that_a_killed_process_left_half_written_is_passed_over(tmp_path):
    journal = Journal(tmp_path)
    journal.tell("epoch", epoch=0)
    journal.tell("epoch", epoch=1)
    whole = journal.path.read_bytes()
    for cut in range(1, len(whole.splitlines()[1])):
        journal.path.write_bytes(whole[:-1][:-cut])
        assert [event["epoch"] for event in read_events(tmp_path)] == [0]


def test_what_is_told_after_a_torn_line_is_read(tmp_path):
    Journal(tmp_path).tell("epoch", epoch=0)
    with (tmp_path / events.FILE).open("ab") as file:
        file.write(b'{"kind": "ep')
    later = Journal(tmp_path)
    later.tell("phase", text="Going on")
    later.tell("epoch", epoch=1)
    assert [event["kind"] for event in read_events(tmp_path)] == ["epoch", "phase", "epoch"]


def test_an_epoch_that_was_told_twice_counts_once_as_it_was_told_last(tmp_path):
    journal = Journal(tmp_path)
    for epoch, loss in ((0, 0.9), (1, 0.8), (1, 0.7), (2, 0.6)):
        journal.tell("step", epoch=epoch)
        journal.tell("epoch", epoch=epoch, val_loss=loss)
    told = events.epochs(read_events(tmp_path))
    assert [(event["epoch"], event["val_loss"]) for event in told] == [(0, 0.9), (1, 0.7), (2, 0.6)]


def watched_fit(folder, config, train=20, resume=False):
    """Train on the small set. Returns the optimizer's steps after each epoch, and what was told."""
    folder.mkdir(exist_ok=True)
    network, trained = loop.started(config, ("right", "left"), "binary")
    watch = Watch(folder, folder / "stop")
    data = pictures(train, 1), pictures(12, 2)
    loop.fit(network, *data, "binary", config, folder, resume, trained=trained, watch=watch)
    told = read_events(folder)
    return [event["step"] for event in events.epochs(told)], told


class Memory:
    """Stands for a machine that holds so many pictures at a time, from an epoch on."""

    def __init__(self, monkeypatch, most: int, since_epoch: int = 0) -> None:
        self.sizes: list[int] = []
        step = loop.Learner.training_step

        def tight(learner, batch, index):
            if len(batch[0]) > most and learner.current_epoch >= since_epoch:
                raise torch.OutOfMemoryError("CUDA out of memory.")
            self.sizes.append(len(batch[0]))
            return step(learner, batch, index)

        monkeypatch.setattr(loop.Learner, "training_step", tight)


@pytest.mark.parametrize("train", [16, 20, 23, 6])  # of which batches of 8 leave none, 4, 7 over, or are not filled
def test_where_memory_runs_out_batches_are_halved_and_steps_stay_what_they_are(train, tmp_path, monkeypatch):
    roomy, told = watched_fit(tmp_path / "roomy", SMALL, train)
    assert roomy == [max(1, train // 8), 2 * max(1, train // 8)]
    assert events.last(told, "note") is None
    memory = Memory(monkeypatch, most=4)
    steps, told = watched_fit(tmp_path / "tight", SMALL, train)
    assert steps == roomy
    assert max(memory.sizes) == 4
    assert sum(memory.sizes) == 2 * (train if train < 8 else train // 8 * 8)  # each epoch sees as many as before
    notes = [event["text"] for event in told if event["kind"] == "note"]
    assert notes == ["Memory ran out. Going on with 4 pictures at a time."]
    assert [event["batch_size"] for event in told if event["kind"] == "begin"] == [min(8, train), 4]
    assert events.last(told, "begin")["steps"] == roomy[-1]


def test_batches_are_halved_as_often_as_it_takes(tmp_path, monkeypatch):
    memory = Memory(monkeypatch, most=1)
    steps, told = watched_fit(tmp_path, replace(SMALL, train_px=64))  # batch norm needs more than one value
    assert steps == [2, 4]
    assert set(memory.sizes) == {1}
    notes = [event["text"] for event in told if event["kind"] == "note"]
    assert [note.split()[6] for note in notes] == ["4", "2", "1"]


def test_memory_that_runs_out_later_costs_no_epoch(tmp_path, monkeypatch):
    memory = Memory(monkeypatch, most=4, since_epoch=1)
    steps, _ = watched_fit(tmp_path, SMALL)
    assert steps == [2, 4]
    assert memory.sizes == [8, 8, 4, 4, 4, 4]


def test_memory_for_not_even_one_picture_is_told_in_a_sentence(tmp_path, monkeypatch):
    Memory(monkeypatch, most=0)
    with pytest.raises(
        ConfigError, match=r"Memory ran out with a single picture\. Close other programs, or lower side_px"
    ):
        watched_fit(tmp_path, SMALL)


def test_any_other_fault_of_the_machine_is_not_taken_for_a_lack_of_memory(tmp_path, monkeypatch):
    def fault(*_):
        raise RuntimeError("device-side assert triggered")

    monkeypatch.setattr(loop.Learner, "training_step", fault)
    with pytest.raises(RuntimeError, match="device-side assert"):
        watched_fit(tmp_path, SMALL)
    assert events.last(read_events(tmp_path), "note") is None


def test_what_happened_is_told_in_lines(tmp_path):
    journal = Journal(tmp_path)
    journal.tell("phase", text="Training")
    journal.tell("step", step=1)
    journal.tell("epoch", epoch=0, train_loss=0.51, val_loss=0.4, val_auroc=0.9, val_accuracy=0.8)
    journal.tell("note", text="Memory ran out.")
    assert [line[9:] for line in events.in_lines(read_events(tmp_path))] == [
        "Training",
        "Epoch 1: train loss 0.510, val loss 0.400, val auroc 0.900, val accuracy 0.800",
        "Memory ran out.",
    ]


def test_the_seed_of_a_run_does_not_change_which_cases_are_held_out(labelled_zip, tmp_path, monkeypatch):
    asked = []

    def stop(data, *more):
        asked.append(more)
        raise DataError("enough")

    monkeypatch.setattr(run, "with_splits", stop)
    for seed in (0, 3):
        plan = Plan("sides", replace(SMALL, seed=seed), About("Sides"))
        with pytest.raises(DataError, match="enough"):
            run.make(plan, labelled_zip, tmp_path / "run", tmp_path / "out", "")
    assert asked == [(), ()]  # a parent of another seed has not learned what its child is tested on
