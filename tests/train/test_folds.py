"""Cross-validation: who is in which fold, what is made of the answers, and a run that is killed on the way."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch

from medfusion.errors import ConfigError
from medfusion.labelled import read_labelled
from medfusion.types import InputSpec
from tests.train.test_jobs import PLAN, SMALL, ended, home  # noqa: F401
from training import folds, jobs, loop
from training.datasets import decode, with_splits
from training.preflight import preflight
from training.watch import Watch

THREE = replace(SMALL, folds=3, epochs=2)
SPEC = InputSpec(64, 64)


@pytest.fixture
def parts(several_zip, tmp_path):
    data = with_splits(read_labelled(several_zip), 0)
    return data, decode(data, SPEC, tmp_path / "pictures.npy")


def test_each_case_but_those_of_test_is_in_one_fold_with_its_patient(parts):
    data, _ = parts
    fold_of = folds.divided(data, THREE)
    assert set(fold_of.tolist()) == {-1, 0, 1, 2}
    assert [fold == -1 for fold in fold_of] == [case.split == "test" for case in data.cases]
    patients = {}
    for case, fold in zip(data.cases, fold_of.tolist(), strict=True):
        patients.setdefault(case.patient_id, set()).add(fold)
    assert all(len(found) == 1 for found in patients.values())
    sizes = np.bincount(fold_of[fold_of >= 0])
    assert sizes.max() - sizes.min() <= 6


def test_more_folds_than_patients_are_refused(parts):
    data, _ = parts
    few = replace(data, cases=data.cases[:4])  # of two patients
    with pytest.raises(ConfigError, match="3 folds need as many patients"):
        folds.divided(few, THREE)


def test_figures_are_those_of_each_fold_and_of_all_together():
    labels = np.array([0, 1, 0, 1, 0, 1])
    scores = torch.tensor([[2.0, -2], [-2, 2], [2, -2], [2, -2], [2, -2], [-2, 2]])  # the second fold errs once
    found = folds.measured(scores, labels, np.array([0, 0, 1, 1, 2, 2]), ("a", "b"), "binary", list("abcdef"), THREE)
    assert found.figures["folds"]["auroc"] == [1.0, 0.5, 1.0]
    assert found.figures["mean"]["auroc"] == pytest.approx(2.5 / 3)
    assert found.figures["spread"]["auroc"] == pytest.approx(np.std([1, 0.5, 1], ddof=1))
    assert found.figures["pooled"]["n"] == 6


def test_a_finished_fold_is_not_trained_again_and_a_stop_says_so(parts, tmp_path, monkeypatch):
    data, pictures = parts
    (tmp_path / "run").mkdir()
    arguments = (data, pictures, data.classes, "multilabel", SPEC, THREE, tmp_path / "run")
    watch = Watch(tmp_path / "run", tmp_path / "run" / "stop")
    whole = folds.cross_validate(*arguments, watch)
    assert {path.name for path in (tmp_path / "run" / "folds").iterdir()} == {"0.npy", "1.npy", "2.npy", "made_from"}
    (tmp_path / "run" / "folds" / "1.npy").unlink()
    trained = []
    fit = loop.fit
    monkeypatch.setattr(loop, "fit", lambda *given, **more: trained.append(1) or fit(*given, **more))
    again = folds.cross_validate(*arguments, watch)
    assert len(trained) == 1
    assert torch.equal(whole.scores, again.scores)
    assert "cross-validation cases" in whole.operating_point.rule
    folds.cross_validate(*arguments[:5], replace(THREE, learning_rate=1e-3), tmp_path / "run", watch)
    assert len(trained) == 4, "folds of other settings are no longer of use"
    flipped = replace(data, cases=(replace(data.cases[0], labels=data.classes[:1]), *data.cases[1:]))
    assert flipped.labels().tolist() != data.labels().tolist()
    folds.cross_validate(flipped, *arguments[1:], watch)
    assert len(trained) == 7, "nor are those of other labels"
    (tmp_path / "run" / "folds" / "1.npy").unlink()
    watch.stop.touch()
    with pytest.raises(ConfigError, match="stopped during cross-validation"):
        folds.cross_validate(*arguments, watch)
    assert not (tmp_path / "run" / "folds" / "1.npy").exists()


def test_a_run_with_folds_keeps_what_they_found_on_its_card(labelled_zip):
    assert preflight(read_labelled(labelled_zip)).blocks == []
    run = ended(jobs.start(replace(PLAN, settings=replace(THREE, trials=2)), labelled_zip).id)
    assert run.status == jobs.DONE, (run.folder / jobs.LOG).read_text()
    crossed = json.loads((run.folder / folds.RESULT).read_text())
    card = json.loads((run.folder / "model" / "card.json").read_text())
    assert card["metrics"]["cross_validation"] == crossed
    assert card["training"]["search"]["trials"] == 2
    chosen = card["training"]["search"]["settings"]
    assert {name: card["training"]["config"][name] for name in chosen} == chosen
    assert crossed["pooled"]["n"] + sum(card["data"]["splits"]["test"].values()) == 84


def test_a_start_that_has_learned_from_the_same_file_cannot_be_cross_validated(parts, tmp_path):
    data, pictures = parts
    known = replace(data, source=tmp_path / "retina.zip")
    config = replace(THREE, start="foundation")
    with pytest.raises(ConfigError, match=r"foundation has learned from retina.zip: no fold"):
        folds.cross_validate(known, pictures, data.classes, "multilabel", SPEC, config, tmp_path)
