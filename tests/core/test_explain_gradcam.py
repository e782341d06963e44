"""Grad-CAM: its weights by hand, and the shared network left as found."""

import gc
import threading
import weakref
from concurrent.futures import ThreadPoolExecutor
from itertools import combinations

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from medfusion import network
from medfusion.errors import Cancelled, ExplanationError
from medfusion.explain import cam, explain
from medfusion.imaging import display
from medfusion.network import Features
from medfusion.preprocess import squash, to_batch
from tests.core.toy_networks import QUADRANTS, ToyNet, dotted, model_of, one_class_a_quadrant, scan_of


class PlaceNet(ToyNet):
    """One channel, and a head that weighs each place: gradients differ from place to place."""

    def __init__(self, place_weights: Tensor) -> None:
        super().__init__([[1, 0, 0, 0]])
        self.place_weights = place_weights

    def extract(self, x: Tensor) -> Tensor:
        return super().extract(x).sum(1, keepdim=True)

    def decide(self, features: Features) -> Tensor:
        return (features.deep_map * self.place_weights).sum((2, 3))


class FailsAfterTheMap(ToyNet):
    def decide(self, features: Features) -> Tensor:
        super().decide(features)
        raise RuntimeError("planted")


def hooks_of(network: nn.Module) -> int:
    return sum(
        len(hooks)
        for module in network.modules()
        for hooks in (
            module._forward_hooks,
            module._forward_pre_hooks,
            module._backward_hooks,
            module._backward_pre_hooks,
        )
    )


def tensors_alive() -> int:
    gc.collect()
    return sum(issubclass(type(thing), Tensor) for thing in gc.get_objects())


def cells(*values: float) -> np.ndarray:
    """The 8×8 map of a 64 px picture, one value a quadrant."""
    a, b, c, d = (np.full((4, 4), value, np.float32) for value in values)
    return np.block([[a, b], [c, d]])


def test_the_map_is_the_channels_weighted_by_their_mean_gradient():
    model = model_of(ToyNet([[2, -1, 0, 0.5]]), ("no", "yes"), task="binary")
    raw = explain(model, scan_of(dotted(0, 1, 2)), 1, "gradcam").raw
    # One dot a cell in three quadrants. The logit of "yes" is z/2, so d/dA is half the weight at every place (eq. 1);
    # channel q lives in quadrant q alone, and the last one is dark (eq. 2, before the ReLU).
    assert raw == pytest.approx(cells(1, -0.5, 0, 0), abs=1e-6)


def test_the_other_class_of_a_binary_model_has_the_opposite_map():
    model = model_of(ToyNet([[2, -1, 0, 0.5]]), ("no", "yes"), task="binary")
    raw = explain(model, scan_of(dotted(0, 1, 2)), 0, "gradcam").raw
    assert raw == pytest.approx(cells(-1, 0.5, 0, 0), abs=1e-6)


def test_gradients_are_averaged_over_the_map_before_they_weigh_it():
    place_weights = torch.zeros(8, 8)
    place_weights[0, 0], place_weights[5, 5] = 192, -64  # mean over 64 places: 2
    raw = explain(model_of(PlaceNet(place_weights), ("only",)), scan_of(dotted(3)), 0, "gradcam").raw
    assert raw == pytest.approx(cells(0, 0, 0, 2), abs=1e-5)


def test_heatmap_keeps_the_positive_side_only():
    model = model_of(ToyNet([[2, -1, 0, 0]]), ("no", "yes"), task="binary")
    explanation = explain(model, scan_of(dotted(0, 1)), 1, "gradcam")
    assert explanation.heatmap[8, 8] == pytest.approx(1, abs=1e-3)
    assert explanation.heatmap[8, 56] == 0
    assert explanation.signed[8, 56] == pytest.approx(-0.5)


def test_no_hook_gradient_or_mode_stays_on_the_shared_network():
    model = one_class_a_quadrant()
    explain(model, scan_of(dotted(1)), 1, "gradcam")
    assert hooks_of(model.network) == 0
    assert all(parameter.grad is None and not parameter.requires_grad for parameter in model.network.parameters())
    assert not any(module.training for module in model.network.modules())


def test_no_hook_stays_after_failure():
    model = model_of(FailsAfterTheMap([[1, 0, 0, 0]]), ("only",))
    with pytest.raises(RuntimeError, match="planted"):
        explain(model, scan_of(dotted(0)), 0, "gradcam")
    assert hooks_of(model.network) == 0


def test_no_hook_is_ever_put_on_the_shared_network():
    seen = []

    class Watched(ToyNet):
        def decide(self, features: Features) -> Tensor:
            seen.append(hooks_of(self))
            return super().decide(features)

    explain(model_of(Watched([[1, 0, 0, 0]]), ("only",)), scan_of(dotted(0)), 0, "gradcam")
    assert seen == [0]


def test_the_package_s_own_hooks_are_released_after_failure(monkeypatch):
    made = []

    class Remembered(cam.FromMap):
        def __init__(self, model, grid):
            super().__init__(model, grid)
            made.append(self)

    monkeypatch.setattr(cam, "FromMap", Remembered)
    with pytest.raises(RuntimeError, match="planted") as failure:
        explain(model_of(FailsAfterTheMap([[1, 0, 0, 0]]), ("only",)), scan_of(dotted(0)), 0, "gradcam")
    assert failure.tb is not None  # the frames are still alive: no destructor has done it
    assert hooks_of(made[0]) == 0


def test_two_sessions_at_once_get_their_own_maps():
    both_inside = threading.Barrier(2, timeout=20)

    class MeetsInside(ToyNet):
        def decide(self, features: Features) -> Tensor:
            both_inside.wait()  # each call has left its trace before either goes on
            return super().decide(features)

    weights = torch.eye(4).tolist()
    scan = scan_of(dotted(0, 1, 2, 3))
    alone = [explain(model_of(ToyNet(weights)), scan, target, "gradcam").raw for target in range(4)]
    shared = model_of(MeetsInside(weights))
    with ThreadPoolExecutor(2) as pool:
        together = list(pool.map(lambda target: explain(shared, scan, target, "gradcam").raw, range(4)))
    for one, other in zip(alone, together, strict=True):
        assert np.array_equal(one, other)


def test_nothing_is_kept_after_a_hundred_explanations(monkeypatch):
    alive: weakref.WeakSet[nn.Module] = weakref.WeakSet()

    class Tracked(cam.FromMap):
        def __init__(self, model, grid):
            super().__init__(model, grid)
            alive.add(self)

    monkeypatch.setattr(cam, "FromMap", Tracked)
    model, scan = one_class_a_quadrant(), scan_of(dotted(0))
    explain(model, scan, 0, "gradcam")
    before = tensors_alive()
    for _ in range(100):
        explain(model, scan, 0, "gradcam")
    assert tensors_alive() <= before
    assert len(alive) == 0


def test_stopped_before_the_start_the_network_is_not_called():
    class MustNotRun(ToyNet):
        def extract(self, x: Tensor) -> Tensor:
            raise RuntimeError("called")

    def stop(done: float) -> None:
        raise Cancelled("Stopped.")

    with pytest.raises(Cancelled):
        explain(model_of(MustNotRun([[1, 0, 0, 0]]), ("only",)), scan_of(dotted(0)), 0, "gradcam", progress=stop)


def test_it_can_be_asked_for_where_gradients_are_off():
    with torch.no_grad():
        assert explain(one_class_a_quadrant(), scan_of(dotted(2)), 2, "gradcam").has_positive_evidence


def test_a_network_without_finite_gradients_is_an_error():
    with pytest.raises(ExplanationError, match="finite"):
        explain(model_of(ToyNet([[float("nan")] * 4]), ("only",)), scan_of(dotted(0)), 0, "gradcam")


def test_the_real_network_is_explained_on_its_last_map_and_left_clean():
    model = model_of(network.build("tiny", 4), QUADRANTS, height_px=64, width_px=96)
    explanation = explain(model, scan_of(dotted(0, 3)), 2, "gradcam")
    assert explanation.raw.shape == (2, 3)  # stride 32
    assert explanation.signed.any()
    assert hooks_of(model.network) == 0
    assert all(parameter.grad is None for parameter in model.network.parameters())


@pytest.mark.parametrize(("grid", "field"), cam.GRIDS.items())
def test_the_real_network_s_map_is_the_one_that_autograd_gives(grid, field):
    model = lively_model()
    scan = scan_of(dotted(0, 3))
    batch = to_batch(squash(display(scan), model.card.input), model.card.input).requires_grad_()
    features = model.network.maps(model.network.extract(batch))
    cells = getattr(features, field)
    (slopes,) = torch.autograd.grad(model.network.decide(features)[0, 2], cells)
    weights = slopes.mean((2, 3), keepdim=True)  # Selvaraju 2017, eq. 1
    expected = (weights * cells).sum(1)[0].detach().numpy()
    raw = explain(model, scan, 2, "gradcam", settings={"grid": grid}).raw
    assert raw == pytest.approx(expected, rel=1e-3, abs=1e-4 * float(np.abs(expected).max()))


def lively_model():
    """MedFusionNet itself, its batch norms and head awake."""
    made = network.build("tiny", 3)
    with torch.no_grad():
        made.head.weight *= 30
    return model_of(made, ("a", "b", "c"), height_px=64, width_px=96)


@pytest.mark.parametrize("grid", ["tokens", "deep"])
def test_hirescam_s_cells_add_up_to_what_the_score_follows(grid):
    """Gradient times activation of a linear head is the score itself, less the bias and what passes beside the grid."""
    model = lively_model()
    scan = scan_of(dotted(0, 3))
    found = explain(model, scan, 1, "hirescam", settings={"grid": grid})
    with torch.inference_mode():
        batch = to_batch(squash(display(scan), model.card.input), model.card.input)
        each = model.network.fused(model.network.maps(model.network.extract(batch)))[0] * model.network.head.weight[1]
    width = model.network.config.width
    part = each[:width] if grid == "tokens" else each[width:]
    assert found.raw.sum() == pytest.approx(part.sum().item(), rel=1e-3)


def test_the_grids_give_different_maps():
    model, scan = lively_model(), scan_of(dotted(0, 3))
    maps = [explain(model, scan, 1, "gradcam", settings={"grid": grid}).heatmap for grid in cam.GRIDS]
    assert not any(np.allclose(one, other) for one, other in combinations(maps, 2))


def test_an_unknown_grid_names_those_there_are():
    with pytest.raises(ExplanationError, match="cnn, tokens, deep"):
        explain(one_class_a_quadrant(), scan_of(dotted(0)), 0, "gradcam", settings={"grid": "stem"})
