"""The quick copy answers like the network it was made from, and leaves that network alone."""

import pytest
import torch
from torch import Tensor, nn

from medfusion.explain.quick import InFloat32, fold, quick_copy
from medfusion.network import MedFusionNet, build
from tests.core.toy_networks import ToyNet


@pytest.fixture
def pictures() -> Tensor:
    """(4, 3, 64, 96): stripes of four widths."""
    columns = torch.arange(96).expand(3, 64, 96)
    return torch.stack([torch.sin(columns / width) for width in (1, 3, 9, 27)])


@pytest.fixture
def network(pictures) -> MedFusionNet:
    """Its batch norms have seen the pictures, and its head tells them apart."""
    network = build("tiny", 3).requires_grad_(False)
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.momentum = 1.0
    network.train()(pictures)
    network.head.weight *= 20
    return network.eval()


def test_a_folded_batch_norm_by_hand():
    conv, norm = nn.Conv2d(1, 1, 1, bias=False), nn.BatchNorm2d(1, eps=0)
    nn.init.constant_(conv.weight, 3)
    norm.running_mean.fill_(2)
    norm.running_var.fill_(4)
    layers = nn.Sequential(conv, norm).eval().requires_grad_(False)
    fold(layers)  # (3x - 2) / 2
    assert layers[0].weight.item() == pytest.approx(1.5)
    assert layers[0].bias.item() == pytest.approx(-1)
    assert isinstance(layers[1], nn.Identity)


def test_in_float32_the_copy_gives_the_same_logits(network, pictures):
    copy, dtype = quick_copy(network, bfloat16=False)
    assert dtype == torch.float32
    assert not any(isinstance(module, nn.BatchNorm2d) for module in copy.modules())
    assert copy(pictures).numpy() == pytest.approx(network(pictures).numpy(), abs=1e-3)  # of logits up to 8


def test_in_bfloat16_the_copy_gives_nearly_the_same_logits(network, pictures):
    copy, dtype = quick_copy(network, bfloat16=True)
    assert dtype == torch.bfloat16
    exact, rounded = network(pictures), copy(pictures.to(dtype))
    assert rounded.dtype == torch.float32
    assert torch.equal(copy.head.head.weight, network.head.weight)  # not rounded on the way
    assert torch.cosine_similarity(rounded.flatten(), exact.flatten(), dim=0) > 0.7  # untrained, it is chaotic


def test_the_head_keeps_the_weights_and_sums_of_float32():
    head = nn.Linear(2, 1, bias=False)
    head.weight.data = torch.tensor([[64.0, 0.125]])  # bfloat16 has steps of 1/2 at 64
    assert InFloat32(head)(torch.ones(1, 2, dtype=torch.bfloat16)).item() == 64.125


@pytest.mark.parametrize("bfloat16", [True, False])
def test_the_shared_network_is_left_alone(network, bfloat16):
    before = {name: value.clone() for name, value in network.state_dict().items()}
    copy, _ = quick_copy(network, bfloat16)
    after = network.state_dict()
    assert after.keys() == before.keys()
    assert all(torch.equal(value, before[name]) and value.dtype == before[name].dtype for name, value in after.items())
    assert {id(module) for module in copy.modules()}.isdisjoint(id(module) for module in network.modules())


def test_a_network_without_batch_norms_is_used_as_it_is():
    network = ToyNet([[1, 0, 0, 0]])
    assert quick_copy(network, bfloat16=True) == (network, torch.float32)
