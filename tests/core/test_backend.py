"""The compiled network answers like PyTorch, for any batch, from several threads, and not at all is no harm."""

import logging
import sys
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch
from scipy.stats import pearsonr, spearmanr
from torch import nn

from medfusion import library
from medfusion.explain import explain
from medfusion.imaging import display
from medfusion.inference import score
from medfusion.network import build
from medfusion.preprocess import squash
from medfusion.samples import SOURCES, read_sample
from tests.bench import gpu
from tests.core.toy_networks import model_of, one_class_a_quadrant

PARITY = 1e-3  # in probability


def lively(height_px=64, width_px=96):
    """Its batch norms have seen pictures, and its head tells them apart."""
    network = build("tiny", 3)
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.momentum = 1.0
    with torch.no_grad():
        network.train()(torch.rand(16, 3, height_px, width_px))
        network.head.weight *= 20
    return model_of(network, ("a", "b", "c"), height_px=height_px, width_px=width_px)


@torch.inference_mode()
def by_pytorch(model, batch):
    return model.network(batch)


@pytest.mark.parametrize("count", [1, 3, 32])
def test_the_compiled_network_agrees_with_pytorch(count):
    model = lively()
    batch = torch.rand(count, 3, 64, 96, generator=torch.Generator().manual_seed(count))
    answers, expected = model.logits(batch), by_pytorch(model, batch)
    assert not torch.equal(answers, expected)  # another engine did answer
    assert answers.softmax(1).numpy() == pytest.approx(expected.softmax(1).numpy(), abs=PARITY)


def test_what_the_head_decides_by_comes_from_the_compiled_network_too():
    model = lively()
    batch = torch.rand(5, 3, 64, 96, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        expected = model.network.fused(model.network.maps(model.network.extract(batch)))
    found = model.fused(batch)
    assert not torch.equal(found, expected)  # another engine did answer
    assert found.numpy() == pytest.approx(expected.numpy(), abs=1e-3)
    assert torch.equal(model.fused(batch[3:])[0], found[3])  # a route does not depend on its neighbours


def test_an_answer_does_not_depend_on_its_neighbours():
    model = lively()
    batch = torch.rand(9, 3, 64, 96, generator=torch.Generator().manual_seed(0))
    together = model.logits(batch)
    assert all(torch.equal(model.logits(batch[i : i + 1])[0], together[i]) for i in range(9))


@pytest.mark.parametrize("count", [6, 37])
def test_many_answers_are_the_same_ones_in_the_same_order(count):
    model = lively()
    batch = torch.rand(count, 3, 64, 96, generator=torch.Generator().manual_seed(count))
    answers, expected = model.logits(batch, many=True), by_pytorch(model, batch)
    assert pearsonr(answers.ravel(), expected.ravel()).statistic > 0.85  # in half precision, perhaps


def test_shipped_models_answer_alike_from_both():
    for card in library.list_cards():
        model = library.load(card.id, "cpu")
        pictures = np.stack([squash(display(read_sample(sample)), card.input) for sample in SOURCES])
        compiled = score(model, pictures)
        model.backend.possible = False
        model.backend.compiled.clear()
        assert score(model, pictures) == pytest.approx(compiled, abs=PARITY)


def test_several_threads_get_their_own_answers():
    model = lively()
    batches = [torch.rand(2, 3, 64, 96, generator=torch.Generator().manual_seed(seed)) for seed in range(12)]
    alone = [model.logits(batch) for batch in batches]
    with ThreadPoolExecutor(4) as pool:
        together = list(pool.map(model.logits, batches))
    assert all(torch.equal(a, b) for a, b in zip(alone, together, strict=True))


def test_half_precision_ranks_superpixels_like_full(monkeypatch):
    model = library.load("chest-xray", "cpu")
    scan = read_sample("synthetic-chest")
    half = explain(model, scan, 1, "lime", settings={"samples": 300})
    monkeypatch.setattr(model.backend, "possible", False)
    model.backend.compiled.clear()
    full = explain(model, scan, 1, "lime", settings={"samples": 300})
    assert spearmanr(half.raw.ravel(), full.raw.ravel()).statistic > 0.95


def test_without_openvino_pytorch_answers_and_the_log_says_so(monkeypatch, caplog):
    model = lively()
    batch = torch.rand(1, 3, 64, 96)
    expected = by_pytorch(model, batch)
    monkeypatch.setitem(sys.modules, "openvino", None)
    with caplog.at_level(logging.WARNING):
        assert model.backend.get() is None
        assert model.backend.get() is None
    assert model.logits(batch, many=True).numpy() == pytest.approx(expected.numpy(), rel=1e-3)  # another layout
    assert caplog.text.count("PyTorch answers instead") == 1


def test_other_networks_stay_with_pytorch():
    model = one_class_a_quadrant()
    assert model.backend.get() is None
    assert model.logits(torch.zeros(1, 3, 64, 64)).shape == (1, 4)


def test_no_telemetry_is_loaded():
    lively().backend.get()
    assert sys.modules["openvino_telemetry"] is None


def test_an_answer_is_the_same_each_time():
    model = lively()
    picture = np.random.default_rng(0).integers(0, 256, (64, 96, 3), dtype=np.uint8)
    assert np.array_equal(score(model, picture), score(model, picture))


def test_the_bench_of_a_gpu_asks_in_every_way_and_is_silent_without_one(monkeypatch):
    monkeypatch.setattr(gpu, "BATCHES", (1, 3))
    monkeypatch.setattr(gpu, "median_s", lambda work, repeats, warm_up: float(len(work())))  # answers, not seconds
    monkeypatch.setattr(torch, "compile", lambda network, **_: network)
    rows = gpu.on("cpu")
    assert [(row.ours_s, row.package_s) for row in rows] == [(1, 1)] * 4 + [(3, 3)] * 4
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert gpu.answers() == []
