"""Pictures with several labels or none, from the zip to a model in use and to a second one that is compared with it."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from medfusion import evaluate, library
from medfusion.conformal import SLACK
from medfusion.labelled import read_labelled
from tests.train.test_jobs import PLAN, SMALL, ended, home  # noqa: F401
from training import balance, finish, jobs, promote
from training.__main__ import main as training_command
from training.datasets import with_splits
from training.preflight import preflight
from training.promote import result_of


def test_the_split_keeps_patients_apart_and_every_label_on_each_side(several_zip):
    data = with_splits(read_labelled(several_zip), seed=0)
    sides = {}
    for case in data.cases:
        sides.setdefault(case.patient_id, set()).add(case.split)
    assert all(len(side) == 1 for side in sides.values())
    for row in data.counts().values():
        assert min(row.values()) >= 5


def test_the_check_counts_cases_of_each_label(several_zip):
    found = preflight(read_labelled(several_zip))
    assert found.pictures == 112
    assert found.blocks == []
    assert list(found.counts[""].values()) == read_labelled(several_zip).labels().sum(axis=0).tolist()


def test_the_rarest_label_of_each_case_decides_how_often_it_is_drawn():
    labels = np.array([[1, 1], [1, 0], [1, 0], [0, 0]])
    assert balance.rarest_label(labels).tolist() == [1, 0, 0, 2]
    assert balance.draws(labels, 12, 1.0).tolist() == pytest.approx([4, 2, 2, 4])


@pytest.mark.parametrize("name", balance.BALANCES)
def test_a_loss_of_several_labels_is_least_where_all_are_told(name):
    labels = np.array([[1, 0], [0, 0], [1, 1], [0, 0]])
    loss = balance.loss_of(name, labels, 2, 0.5, 0.0)
    right = torch.tensor(labels, dtype=torch.float32) * 12 - 6
    assert float(loss(right, torch.tensor(labels))) < 0.02
    assert float(loss(-right, torch.tensor(labels))) > 2


def test_each_label_has_a_threshold_that_finds_its_cases():
    probabilities = np.array([[0.9, 0.2], [0.6, 0.3], [0.3, 0.8], [0.1, 0.1]])
    point = finish.operating_point(probabilities, np.array([[1, 0], [1, 1], [0, 1], [0, 0]]), "multilabel")
    assert point.thresholds == pytest.approx((0.6 - SLACK, 0.3 - SLACK))  # found however they are rounded


def test_a_run_ends_in_a_model_that_tells_the_labels_apart_and_is_compared_with_the_next(several_zip):
    settings = replace(SMALL, epochs=12, patience=12, train_px=64, learning_rate=3e-3)
    first = ended(jobs.start(replace(PLAN, settings=settings), several_zip).id)
    assert first.status == jobs.DONE, (first.folder / jobs.LOG).read_text()
    result = result_of(first)
    assert result["child"]["auroc"]["value"] > 0.9
    assert set(result["child"]["per_class"]) == {"left", "right"}
    card = promote.promote(first.id, "sides", "There is no other, and it was seen to work.")
    assert card.task == "multilabel"
    model = library.load("sides", "cpu")
    measured = evaluate.measure(model, read_labelled(several_zip))
    assert measured.answers.shape == (112, 2)
    second = ended(jobs.start(replace(PLAN, settings=replace(settings, start="sides", epochs=1)), several_zip).id)
    assert second.status == jobs.DONE, (second.folder / jobs.LOG).read_text()
    assert result_of(second)["parent_id"] == "sides"


def test_sets_of_several_labels_are_refused_where_sets_are_joined(several_zip, tmp_path, capsys):
    command = ["foundation", "--data", str(several_zip), "--out", str(tmp_path / "first"), "--start", "scratch"]
    assert training_command([*command, "--frozen-stages", "0", "--runs", str(tmp_path)]) == 2
    assert "several.zip has several labels a picture" in capsys.readouterr().err
