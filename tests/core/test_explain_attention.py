"""Score-CAM and attention rollout, by hand on the toy network, and on the real one."""

import numpy as np
import pytest
import torch

from medfusion import network
from medfusion.explain import explain
from medfusion.explain.scorecam import to_range
from tests.core.toy_networks import CELL_PX, ToyNet, dotted, model_of, one_class_a_quadrant, scan_of


def test_a_channel_weighs_what_it_alone_is_worth():
    model = model_of(ToyNet([[2, 0, -1, 0]]), ("no", "yes"), task="binary")
    raw = explain(model, scan_of(dotted(0, 1, 2)), 1, "scorecam").raw
    rows, columns = raw.shape[0] // 2, raw.shape[1] // 2
    for_it, ignored, against = raw[:rows, :columns], raw[:rows, columns:], raw[rows:, :columns]
    # Sixteen dots a quadrant, each worth the quadrant's weight; the blurred edge of a mask dims the outermost a little.
    assert for_it == pytest.approx(16 * 2, rel=0.1)
    assert against == pytest.approx(-16, rel=0.1)
    assert ignored == pytest.approx(0, abs=1e-6)  # the package's softmax would give it a share


def test_channels_are_stretched_each_on_its_own_and_even_ones_mark_nothing():
    channels = torch.tensor([[[1.0, 3.0]], [[-2.0, 0.0]], [[5.0, 5.0]]])
    assert to_range(channels)[:, 0].tolist() == [[0, 1], [0, 1], [0, 0]]


@pytest.mark.parametrize("grid", ["cnn", "tokens"])
def test_score_cam_of_the_real_network_on_both_grids(grid):
    model = model_of(network.build("tiny", 2), ("no", "yes"), height_px=64, width_px=96)
    raw = explain(model, scan_of(dotted(0, 3)), 1, "scorecam", settings={"grid": grid}).raw
    assert raw.shape[1] * 64 == raw.shape[0] * 96


def test_rollout_by_hand():
    """One block: half of each token stays its own, half is shared by the 16 of 64 cells with dots."""
    raw = explain(one_class_a_quadrant(), scan_of(dotted(0)), 0, "rollout").raw
    assert raw.shape == (64 // CELL_PX, 64 // CELL_PX)
    assert raw[:4, :4] == pytest.approx(64 * (0.5 / 64 + 0.5 / 16) - 1, abs=1e-3)
    assert raw[4:] == pytest.approx(64 * 0.5 / 64 - 1, abs=1e-3)


def test_rollout_is_the_same_for_every_class_and_says_so():
    model, scan = one_class_a_quadrant(), scan_of(dotted(1))
    one, other = (explain(model, scan, target, "rollout") for target in (0, 2))
    assert np.array_equal(one.raw, other.raw)
    assert not one.knows_class


def test_attention_that_looks_nowhere_in_particular_leaves_no_map():
    assert not explain(one_class_a_quadrant(), scan_of(np.zeros((64, 64), np.uint8)), 0, "rollout").raw.any()


def test_attentions_are_shares_for_each_head_of_each_block():
    made = network.build("tiny", 2).eval()
    with torch.no_grad():
        attentions = made.attentions(made.extract(torch.zeros(1, 3, 64, 96)))
    assert len(attentions) == len(made.encoder)
    for attention in attentions:
        assert attention.shape[2] == attention.shape[3] == (64 // 16) * (96 // 16)
        assert torch.allclose(attention.sum(3), torch.ones(()), atol=1e-5)
        assert (attention >= 0).all()


def test_attentions_are_those_that_the_blocks_use():
    """What a block takes from other tokens, made again from the attentions handed over."""
    made = network.build("tiny", 2, seed=3).eval()
    with torch.no_grad():
        cnn_map = made.extract(torch.rand(1, 3, 64, 64))
        block = made.encoder[0]
        tokens = block.norm_attention(made.embed(cnn_map))
        mixed = made.attentions(cnn_map)[0] @ block.split(tokens)[2]
        assert torch.allclose(block.out(mixed.transpose(1, 2).flatten(2)), block.attend(tokens), atol=1e-5)
