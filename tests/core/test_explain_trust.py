"""Tests of maps: a network whose evidence is known tells a right map from a wrong one."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from pytorch_grad_cam.metrics.road import NoisyLinearImputer

from medfusion.errors import Cancelled
from medfusion.explain import explain, shortcuts
from medfusion.explain.faithfulness import RANDOM_MAPS, SHARES, faithfulness, fill, neighbours, ranks, shuffled
from medfusion.explain.stability import SEEDS, stability
from tests.core.toy_networks import corner, dotted, model_of, one_class_a_quadrant, scan_of


def mapped(heatmap: np.ndarray, scan, model, target=0):
    """An explanation with a map of our own choice."""
    made = explain(model, scan, target, "gradcam")
    grid = heatmap.astype(np.float32)
    return replace(made, heatmap=np.maximum(grid, 0), signed=grid, raw=grid, evidence=grid)


def quadrant(index: int) -> np.ndarray:
    """A hill in the middle of one quadrant of 64 × 64."""
    rows, columns = np.mgrid[:64, :64]
    where = corner(index, 64, 64)
    middle = rows[where].mean(), columns[where].mean()
    return np.exp(-((rows - middle[0]) ** 2 + (columns - middle[1]) ** 2) / 200)


def test_a_map_of_the_evidence_is_better_than_random():
    model, scan = one_class_a_quadrant(0.2), scan_of(dotted(0))
    found = faithfulness(model, scan, mapped(quadrant(0), scan, model))
    assert found.is_better_than_random
    assert found.road_better_than == 1
    assert found.insertion > found.deletion
    assert found.road > 0


@pytest.mark.parametrize("wrong", [quadrant(3), -quadrant(0)], ids=["elsewhere", "upside down"])
def test_a_map_of_something_else_is_no_better_than_random(wrong):
    model, scan = one_class_a_quadrant(0.2), scan_of(dotted(0))
    found = faithfulness(model, scan, mapped(wrong, scan, model))
    assert not found.is_better_than_random
    assert found.better_than < 0.5
    assert found.road <= 0


def test_curves_run_from_the_picture_to_the_blurred_one_and_back():
    model, scan = one_class_a_quadrant(0.2), scan_of(dotted(0))
    found = faithfulness(model, scan, mapped(quadrant(0), scan, model))
    assert len(found.deletion_curve) == len(found.insertion_curve) == len(SHARES)
    first, last = found.deletion_curve[0], found.deletion_curve[-1]
    assert first == found.insertion_curve[-1] == pytest.approx(found.random_deletion_curve[0])
    assert last == found.insertion_curve[0] == pytest.approx(found.random_insertion_curve[0])
    assert found.deletion == pytest.approx(np.trapezoid(found.deletion_curve, SHARES))


def test_the_same_seed_gives_the_same_figures_and_progress_can_end_it():
    model, scan = one_class_a_quadrant(0.2), scan_of(dotted(0))
    made = mapped(quadrant(1), scan, model)
    first, second = (faithfulness(model, scan, made, seed=3) for _ in range(2))
    assert first == second or (first.deletion_curve, first.road) == (second.deletion_curve, second.road)
    steps: list[float] = []
    faithfulness(model, scan, made, progress=steps.append)
    assert steps == sorted(steps)
    assert len(steps) == RANDOM_MAPS + 2
    assert steps[-1] == 1

    def stop(_: float) -> None:
        raise Cancelled

    with pytest.raises(Cancelled):
        faithfulness(model, scan, made, progress=stop)


def test_a_map_without_contrast_is_not_tested():
    model, scan = one_class_a_quadrant(), scan_of(dotted(0))
    assert faithfulness(model, scan, mapped(np.zeros((64, 64)), scan, model)) is None


def test_random_maps_hold_the_same_values_in_other_places():
    order = np.random.default_rng(0)
    hill = quadrant(0)
    for _ in range(20):
        other = shuffled(hill, order)
        assert np.array_equal(np.sort(other, axis=None), np.sort(hill, axis=None))
        assert np.corrcoef(other.ravel(), hill.ravel())[0, 1] < 0.75


def test_ranks_begin_with_the_strongest_support():
    rank = ranks(np.array([[0.0, 2.0], [-1.0, 1.0]]), np.random.default_rng(0))
    assert rank.tolist() == [[0.5, 0.0], [0.75, 0.25]]


@pytest.mark.filterwarnings("ignore:__array_wrap__")  # the package gives tensors to NumPy
def test_what_is_missing_is_filled_as_the_package_fills_it():
    rng = np.random.default_rng(0)
    picture = rng.random((3, 20, 26)).astype(np.float32)
    gone = rng.random((20, 26)) < 0.3
    gone[2:12, 5:19] = True
    ours = fill(picture, gone, neighbours(20, 26))
    packaged = NoisyLinearImputer(noise=0)(torch.from_numpy(picture), torch.from_numpy((~gone).astype(np.float32)))
    assert np.allclose(ours, packaged.numpy(), atol=1e-5)
    assert np.array_equal(ours[:, ~gone], picture[:, ~gone])


def lime_maps(model, scan, samples):
    settings = {"samples": samples, "superpixels": 16, "batch_size": 64}
    return [explain(model, scan, 0, "lime", seed=seed, settings=settings) for seed in range(SEEDS)]


def test_many_samples_are_stable_and_few_are_not():
    model, scan = one_class_a_quadrant(0.1), scan_of(dotted(0, 1))
    steady, shaky = (stability(lime_maps(model, scan, samples)) for samples in (1000, 24))
    assert steady.seeds == tuple(range(SEEDS))
    assert steady.deviation.max() < shaky.deviation.max()
    assert steady.unstable_share < shaky.unstable_share
    assert steady.jaccard >= shaky.jaccard


def test_stability_by_hand():
    model, scan = one_class_a_quadrant(), scan_of(dotted(0))
    one, other = lime_maps(model, scan, 50)[:2]
    raw = np.zeros((2, *one.raw.shape), np.float32)
    raw[:, :32] = [[[1.0]], [[1.2]]]  # sure: 1.1, deviation 0.14
    raw[:, 32:] = [[[0.5]], [[-0.1]]]  # not sure: 0.2, deviation 0.42
    found = stability([replace(one, evidence=raw[0]), replace(other, evidence=raw[1])])
    assert found.mean[0, 0] == pytest.approx(1.1)
    assert found.deviation[0, 0] == pytest.approx(0.1414, abs=1e-4)
    assert not found.unstable[:32].any()
    assert found.unstable[32:].all()
    assert found.unstable_share == 0.5


def test_stability_compares_only_what_differs_in_its_seed_alone():
    model, scan = one_class_a_quadrant(), scan_of(dotted(0))
    one, other = lime_maps(model, scan, 50)[:2]
    for wrong in ([one], [one, one], [one, replace(other, target_index=1)]):
        with pytest.raises(ValueError, match="seed alone"):
            stability(wrong)


@pytest.fixture
def fundus() -> np.ndarray:
    """A bright disc on black with a letter in the corner, 128 × 128 RGB."""
    rows, columns = np.mgrid[:128, :128]
    picture = np.where((rows - 64) ** 2 + (columns - 64) ** 2 < 50**2, 120, 0).astype(np.uint8)
    picture[6:14, 8:10] = picture[12:14, 8:14] = 255  # an L
    return np.repeat(picture[..., None], 3, axis=2)


def test_parts_without_anatomy_are_found(fundus):
    parts = shortcuts.parts_of(fundus)
    assert list(parts) == ["the border", "the black background", "text or markers"]
    assert parts["text or markers"][13, 13]
    assert not parts["text or markers"][30:].any()
    assert parts["the black background"][60, 2]
    assert not parts["the black background"][64, 64]
    assert list(shortcuts.parts_of(np.full((64, 64, 3), 90, np.uint8))) == ["the border"]


def test_painting_over_takes_a_part_away_and_leaves_the_rest(fundus):
    mask = shortcuts.parts_of(fundus)["text or markers"]
    painted = shortcuts.painted_over(fundus, mask)
    assert painted[mask].max() < 30
    assert np.array_equal(painted[~mask], fundus[~mask])
    assert np.array_equal(shortcuts.painted_over(fundus, np.ones((128, 128), bool)), fundus)


class MarkerNet(torch.nn.Module):
    """Says yes by the brightest corner of the picture: a shortcut."""

    def __init__(self, rows: slice) -> None:
        super().__init__()
        self.rows = rows

    def forward(self, x):
        return 8 * x[:, :1, self.rows, 4:16].amax((2, 3)) - 4


@pytest.mark.parametrize(("rows", "leans"), [(slice(4, 16), True), (slice(56, 72), False)])
def test_an_answer_that_rests_on_a_marker_is_told(fundus, rows, leans):
    model = model_of(MarkerNet(rows), ("no", "yes"), "binary", 128, 128)
    scan = scan_of(fundus[..., 0])
    heat = np.zeros((128, 128), np.float32)
    heat[6:14, 8:14] = 1
    made = replace(
        explain(one_class_a_quadrant(), scan_of(dotted(0)), 0, "gradcam"),
        heatmap=heat, signed=heat, target_index=1, target_name="yes",
    )  # fmt: skip
    if not leans:
        made = replace(made, heatmap=np.ones_like(heat))
    found = shortcuts.shortcuts(model, scan, made)
    assert ("Beware of a shortcut" in found.in_words()) == leans
    marker = next(part for part in found.parts if part.name == "text or markers")
    assert marker.leans(found.probability) == leans
    if leans:
        assert marker.evidence > 0.8
        assert found.probability - marker.probability > 0.5


def test_a_map_without_evidence_still_tells_what_the_answer_rests_on():
    part = shortcuts.Part("text or markers", 0.02, float("nan"), 0.2)
    words = shortcuts.Shortcuts("yes", 0.9, (part,)).in_words()
    assert words == (
        "Beware of a shortcut: with text or markers, which is 2 % of the picture, painted over, "
        "the probability of yes goes from 90 % to 20 %."
    )
