"""The comparison of networks: fair subsets, rows that are measured once, and tables that hold them."""

import shutil
from argparse import Namespace
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest

pytest.importorskip("timm", reason="timm is not installed: it brings the rivals")

from medfusion import library, router
from tests.bench.models import __main__ as bench
from tests.bench.models import networks, report, routing
from tests.bench.models.trials import EXPERIMENTS, Trial, trials
from tests.train.sides import pictures

COMMAND = ["--only", "rivals", "--drawn", "20", "--side-px", "32", "--workers", "0", "--data"]


def subset(share=1.0, rarity=0, seed=0):
    data = pictures(100, 1)
    cases = [SimpleNamespace(patient_id=f"p{i // 2}") for i in range(100)]
    return bench.thinned(data, SimpleNamespace(cases=cases), Trial("", "", share=share, rarity=rarity, seed=seed))


def test_shares_hold_each_other_and_keep_the_classes_in_proportion():
    tenth, half, whole = (subset(share) for share in (0.1, 0.5, 1.0))
    assert set(tenth.rows) < set(half.rows) < set(whole.rows) == set(range(100))
    assert np.bincount(half.labels).tolist() == [25, 25]
    assert set(subset(0.1, seed=1).rows) != set(tenth.rows)


def test_rarity_thins_the_second_class_only():
    assert np.bincount(subset(rarity=10).labels).tolist() == [50, 5]


def test_an_experiment_compares_on_every_seed_and_never_twice_the_same():
    for experiment in EXPERIMENTS:
        found = list(trials(experiment, [0, 1]))
        assert len(set(found)) == len(found)
        assert {replace(trial, seed=0) for trial in found if trial.seed} == {t for t in found if not t.seed}


@pytest.mark.parametrize("name", networks.RIVALS)
def test_rivals_answer_alike(name):
    import torch

    network = networks.make(name, 3, 64).eval()
    assert network(torch.zeros(2, 3, 64, 64)).shape == (2, 3)
    assert network.get_classifier().weight.std() < 0.1  # each begins undecided: timm's EfficientNets would not
    assert networks.trained_parts(name, network, "scratch") == ()


def test_a_rival_from_imagenet_has_all_weights_but_the_classifier_s():
    import torch

    given = list(networks.imagenet_weights().values())
    found = networks.make("efficientnet-lite0", 3, 64, "imagenet").state_dict()
    for (name, value), wanted in zip(found.items(), given, strict=True):
        assert "classifier" in name or torch.equal(value, wanted)


def test_a_trial_is_run_once_and_its_figures_reach_the_tables(labelled_zip, tmp_path, monkeypatch):
    (tmp_path / "breast_ultrasound.zip").write_bytes(labelled_zip.read_bytes())
    monkeypatch.setattr(bench, "trials", lambda name, seeds: [Trial(name, "breast_ultrasound")])
    monkeypatch.setattr(bench, "costs", lambda table: None)
    monkeypatch.setattr(bench, "ROUNDS", 2)
    out = tmp_path / "out"
    command = [*COMMAND, str(tmp_path), "--out", str(out), "--runs", str(tmp_path / "runs")]
    assert bench.main(command) == 0
    (row,) = bench.read(out / "rivals.csv")
    assert 0 <= float(row["test_auroc"]) <= 1
    assert f"{float(row['test_auroc']):.3f}" in (out / "tables.md").read_text(encoding="utf-8")

    monkeypatch.setattr(bench, "run", lambda trial, options: pytest.fail("ran again"))
    assert bench.main(command) == 0
    with pytest.raises(pytest.fail.Exception, match="ran again"):
        bench.main([word if word != "20" else "40" for word in command])  # another budget is another row


def test_costs_are_known_figures():
    found = networks.cost("resnet-18")
    assert found["parameters_m"] == pytest.approx(11.18, abs=0.01)  # He 2016 less 998 classes
    assert found["gmacs"] == pytest.approx(1.81, abs=0.02)
    assert networks.cost("vit-tiny-16")["gmacs"] == pytest.approx(1.25, abs=0.01)  # with the products of attention


def test_tables_give_the_mean_and_range_over_seeds(tmp_path):
    row = {"experiment": "imbalance", "balance": "focal", "drawn": "640", "side_px": "64"}
    figures = ("val_balanced_accuracy", "val_auroc", "test_balanced_accuracy", "test_auroc")
    for seed, value in enumerate((0.5, 0.7)):
        bench.append(tmp_path / "imbalance.csv", row | {"seed": seed} | dict.fromkeys(figures, value))
    report.write(tmp_path)
    assert "| focal | 0.600 (0.500 to 0.700) |" in (tmp_path / "tables.md").read_text(encoding="utf-8")
    bench.append(tmp_path / "imbalance.csv", row | {"drawn": "6400", "seed": 0} | dict.fromkeys(figures, 0.9))
    report.write(tmp_path)
    tables = (tmp_path / "tables.md").read_text(encoding="utf-8")
    assert "| focal | 0.600 (0.500 to 0.700) |" in tables and "| focal | 0.900 |" in tables  # each budget by itself


def test_starts_are_compared_run_by_run(tmp_path):
    row = {"experiment": "learning_curves", "data": "retina", "network": "ours", "drawn": "640", "side_px": "64"}
    runs = {("imagenet", "0.1", 0): 0.5, ("imagenet", "1.0", 0): 0.8, ("imagenet", "1.0", 1): 0.8}
    runs |= {("foundation", "0.1", 0): 0.6, ("foundation", "1.0", 0): 0.8, ("foundation", "0.1", 2): 0.0}  # unpaired
    for (start, share, seed), value in runs.items():
        figures = {"cases": 9, "val_auroc": value, "test_auroc": value}
        bench.append(tmp_path / "learning_curves.csv", row | {"start": start, "share": share, "seed": seed} | figures)
    report.write(tmp_path)
    told = (tmp_path / "tables.md").read_text(encoding="utf-8")
    assert "| retina | ours, foundation | +0.050 ± 0.050 (1 of 2) | +0.050 ± 0.050 (1 of 2) |" in told


def test_a_foundation_that_leaves_a_set_out_never_reads_it(monkeypatch, tmp_path):
    runs = []
    monkeypatch.setattr(bench.foundation, "run", runs.append)
    options = Namespace(data=tmp_path, runs=tmp_path, side_px=64, drawn=100)
    folders = {bench.without("retina", options, times) for times in (1, 4)}
    assert len(folders) == 2
    for given, draws in zip(runs, (20, 80), strict=True):
        assert {path.stem for path in given.data} == set(bench.SETS) - {"retina"}
        assert given.draws == [draws] * 5


def test_routing_is_measured_with_the_shipped_models_only(tmp_path, monkeypatch):
    shutil.copytree(library.SHIPPED / "retina", tmp_path / "ours")
    card = tmp_path / "ours" / "card.json"
    card.write_text(card.read_text(encoding="utf-8").replace('"id": "retina"', '"id": "ours"'), encoding="utf-8")
    monkeypatch.setenv("MEDFUSION_MODELS", str(tmp_path))
    assert "ours" in router.load().known
    assert {model_id.replace("-", "_") for model_id in routing.shipped().known} == set(bench.SETS)


def test_pictures_that_nothing_was_tuned_on_come_whole_and_in_parts():
    found = list(routing.others(np.random.default_rng(0)))
    assert len(found) == len(routing.OTHERS) * (1 + routing.CROPS)
    assert all(picture.dtype == np.uint8 and min(picture.shape[:2]) >= 40 for picture in found)
    assert not {name.split(".")[0] for name in routing.OTHERS} & {*routing.PHOTOGRAPHS, "china", "flower"}
