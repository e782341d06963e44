"""What every explanation method owes its users. A method added to EXPLAINERS is tested here without another line."""

from concurrent.futures import ThreadPoolExecutor
from dataclasses import fields

import numpy as np
import pytest
import torch
from torch import Tensor

from medfusion.errors import Cancelled, ExplanationError
from medfusion.explain import EXPLAINERS, describe, explain
from tests.core.toy_networks import (
    CELL_PX,
    QUADRANTS,
    ToyNet,
    corner,
    dotted,
    model_of,
    one_class_a_quadrant,
    scan_of,
)

QUICK = {"lime": {"samples": 300, "superpixels": 16, "batch_size": 64}}  # the last batch is a short one
MOSTLY = 0.7  # an even map has 0.25 in a quadrant; superpixels reach over its edge

pytestmark = pytest.mark.parametrize("method", EXPLAINERS)
of_a_class = pytest.mark.usefixtures("knows_class")


@pytest.fixture
def knows_class(method):
    if not EXPLAINERS[method].knows_class:
        pytest.skip(f"{EXPLAINERS[method].title} has one map for all classes.")


class Counting(ToyNet):
    """Counts how often its CNN runs."""

    calls = 0

    def extract(self, x: Tensor) -> Tensor:
        self.calls += 1
        return super().extract(x)


def quick(model, scan, target_index, method, **more):
    return explain(model, scan, target_index, method, settings=QUICK.get(method), **more)


def share_inside(heatmap: np.ndarray, quadrant: int) -> float:
    return heatmap[corner(quadrant, *heatmap.shape)].sum() / heatmap.sum()


@pytest.mark.parametrize("quadrant", range(4), ids=QUADRANTS)
def test_explainer_points_at_the_only_bright_quadrant(method, quadrant):
    explanation = quick(one_class_a_quadrant(), scan_of(dotted(quadrant)), quadrant, method)
    assert share_inside(explanation.heatmap, quadrant) > MOSTLY
    assert QUADRANTS[quadrant] in describe(explanation)


@of_a_class
@pytest.mark.parametrize("target", range(4), ids=QUADRANTS)
def test_each_class_gets_its_own_map_of_one_picture(method, target):
    explanation = quick(one_class_a_quadrant(0.1), scan_of(dotted(0, 1, 2, 3)), target, method)
    assert share_inside(explanation.heatmap, target) > MOSTLY


def test_maps_are_float32_on_the_grid_of_the_original_frame(method):
    explanation = quick(one_class_a_quadrant(), scan_of(dotted(1, height=128, width=192)), 1, method)
    for part in (explanation.heatmap, explanation.signed):
        assert part.shape == (128, 192)
        assert part.dtype == np.float32
    assert explanation.raw.dtype == np.float32
    assert explanation.heatmap.min() == 0
    assert explanation.heatmap.max() == 1
    assert np.abs(explanation.signed).max() == 1


@of_a_class
def test_evidence_against_is_negative_in_the_signed_map_only(method):
    model = model_of(ToyNet([[0.3, -0.3, 0, 0]]), ("no", "yes"), task="binary")
    explanation = quick(model, scan_of(dotted(0, 1)), 1, method)
    upper_left, upper_right = corner(0, 64, 64), corner(1, 64, 64)
    assert explanation.signed[upper_left].mean() > 0.1
    if EXPLAINERS[method].tells_against:
        assert explanation.signed[upper_right].mean() < -0.1
    assert explanation.heatmap[upper_right].mean() < 0.05


@of_a_class
def test_the_negative_class_of_a_binary_model_can_be_explained(method):
    model = model_of(ToyNet([[0.3, -0.3, 0, 0]]), ("no", "yes"), task="binary")
    explanation = quick(model, scan_of(dotted(0, 1)), 0, method)
    assert explanation.target_name == "no"
    assert share_inside(explanation.heatmap, 1) > MOSTLY


@of_a_class
def test_every_class_of_a_multilabel_model_can_be_explained(method):
    model = model_of(ToyNet([[0.2, 0, 0, 0], [0, 0, 0, 0.2]]), ("first", "second"), task="multilabel")
    for target, quadrant in ((0, 0), (1, 3)):
        explanation = quick(model, scan_of(dotted(0, 1, 2, 3)), target, method)
        assert share_inside(explanation.heatmap, quadrant) > MOSTLY


@of_a_class
def test_a_class_without_positive_evidence_has_an_all_zero_map_and_says_so(method):
    model = model_of(ToyNet([[-0.3, 0, 0, 0]]), ("no", "yes"), task="binary")
    explanation = quick(model, scan_of(dotted(0)), 1, method)
    assert not explanation.heatmap.any()
    assert not explanation.has_positive_evidence
    assert explanation.signed.min() == (-1 if EXPLAINERS[method].tells_against else 0)
    assert describe(explanation).startswith("No positive evidence for yes")


@of_a_class
def test_a_class_that_ignores_the_picture_has_no_evidence_either_way(method):
    model = model_of(ToyNet([[0, 0, 0, 0]]), ("no", "yes"), task="binary")
    explanation = quick(model, scan_of(dotted(0, 3)), 1, method)
    assert not explanation.heatmap.any()
    assert not explanation.signed.any()


@pytest.mark.parametrize("value", [0, 128, 255])
def test_a_constant_picture_gives_a_map_without_a_warning(method, value):
    explanation = quick(one_class_a_quadrant(), scan_of(np.full((64, 64), value, np.uint8)), 0, method)
    assert np.isfinite(explanation.heatmap).all()


def test_the_map_records_what_it_explains(method):
    explanation = quick(one_class_a_quadrant(), scan_of(dotted(2), dotted(3)), 3, method, frame=1, seed=5)
    assert (explanation.method, explanation.target_index, explanation.target_name) == (method, 3, "lower right")
    assert (explanation.model_id, explanation.model_version) == ("toy", "1")
    assert (explanation.scan_sha256, explanation.frame) == ("5ca", 1)
    assert explanation.seed == (5 if EXPLAINERS[method].draws_random_numbers else None)
    assert set(explanation.settings) == {field.name for field in fields(EXPLAINERS[method].settings)}
    assert explanation.elapsed_s > 0


def test_the_frame_asked_for_is_explained(method):
    model = model_of(ToyNet([[0.3, 0, 0, 0.3]]), ("no", "yes"), task="binary")
    scan = scan_of(dotted(0), dotted(3))
    for frame, quadrant in ((0, 0), (1, 3)):
        assert share_inside(quick(model, scan, 1, method, frame=frame).heatmap, quadrant) > MOSTLY


def test_the_map_stays_in_place_where_model_and_scan_have_other_shapes(method):
    """Model 64 × 96, scan 300 × 500; the spot covers three model pixels a side, in the middle of cell (2, 9)."""
    row, column = round((2.5 * CELL_PX) / 64 * 300), round((9.5 * CELL_PX) / 96 * 500)  # 94, 396
    frame = np.zeros((300, 500), np.uint8)
    frame[row - 8 : row + 8, column - 9 : column + 9] = 255
    model = model_of(ToyNet([[0, 1, 0, 0]]), ("no", "yes"), task="binary", height_px=64, width_px=96)
    heatmap = quick(model, scan_of(frame), 1, method).heatmap
    assert heatmap.shape == (300, 500)
    assert heatmap[row, column] > 0.9
    rows, columns = np.nonzero(heatmap > 0.9)
    coarse = {"lime": (103, 102), "occlusion": (150, 167)}  # a superpixel of 16 in 64 × 96; a square of 32 px
    tolerance = coarse.get(method, (300 / 8, 500 / 12))  # a cell
    assert np.abs(rows - row).max() <= tolerance[0]
    assert np.abs(columns - column).max() <= tolerance[1]


def test_progress_rises_to_one(method):
    done: list[float] = []
    quick(one_class_a_quadrant(), scan_of(dotted(0)), 0, method, progress=done.append)
    assert done == sorted(done)
    assert 0 <= done[0] < 1
    assert done[-1] == 1


def test_cancelling_stops_at_once_and_leaves_the_model_usable(method):
    network = Counting((0.5 * torch.eye(4)).tolist())
    model, scan = model_of(network), scan_of(dotted(0))
    whole = quick(model, scan, 0, method)
    needed, network.calls = network.calls, 0

    def stop(done: float) -> None:
        if network.calls:
            raise Cancelled("Stopped.")

    with pytest.raises(Cancelled):
        quick(model, scan, 0, method, progress=stop)
    assert network.calls == 1 <= needed
    assert np.array_equal(quick(model, scan, 0, method).heatmap, whole.heatmap)


def test_weights_and_modes_are_unchanged(method):
    model = one_class_a_quadrant()
    before = {name: value.clone() for name, value in model.network.state_dict().items()}
    quick(model, scan_of(dotted(0)), 0, method)
    assert all(torch.equal(value, before[name]) for name, value in model.network.state_dict().items())
    assert not any(module.training for module in model.network.modules())
    assert not any(parameter.requires_grad for parameter in model.network.parameters())


def test_the_same_call_gives_the_same_map_whatever_was_drawn_between(method):
    model, scan = one_class_a_quadrant(), scan_of(dotted(0, 3))
    first = quick(model, scan, 0, method, seed=1)
    np.random.rand(3)  # the global generator that a method must not depend on
    torch.rand(3)
    assert np.array_equal(quick(model, scan, 0, method, seed=1).raw, first.raw)


@pytest.mark.parametrize("target_index", [-1, 4, 99])
def test_an_unknown_class_is_an_error_that_names_the_range(method, target_index):
    with pytest.raises(ExplanationError, match=f"no class {target_index}. Choose 0 to 3"):
        explain(one_class_a_quadrant(), scan_of(dotted(0)), target_index, method)


def test_an_unknown_setting_is_an_error_that_names_those_there_are(method):
    names = ", ".join(field.name for field in fields(EXPLAINERS[method].settings)) or "none"
    with pytest.raises(ExplanationError, match=f"no setting 'colour'. It has: {names}"):
        explain(one_class_a_quadrant(), scan_of(dotted(0)), 0, method, settings={"colour": 1})


def test_an_unknown_method_is_an_error_that_names_those_there_are(method):
    with pytest.raises(ExplanationError, match=method):
        explain(one_class_a_quadrant(), scan_of(dotted(0)), 0, f"not {method}")


@of_a_class
def test_a_model_without_finite_answers_is_an_error(method):
    model = model_of(ToyNet([[float("nan")] * 4]), ("no", "yes"), task="binary")
    with pytest.raises(ExplanationError, match="finite"):
        quick(model, scan_of(dotted(0)), 1, method)


def test_sessions_at_once_get_the_maps_that_each_gets_alone(method):
    model = one_class_a_quadrant()
    wanted = [(scan_of(dotted(quadrant, 3)), quadrant) for quadrant in range(4)] * 3
    alone = [quick(model, scan, target, method).raw for scan, target in wanted]
    with ThreadPoolExecutor(4) as sessions:
        together = list(sessions.map(lambda one: quick(model, *one, method).raw, wanted))
    assert all(np.array_equal(one, other) for one, other in zip(alone, together, strict=True))
