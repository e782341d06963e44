"""LIME: the weights of models that are linear in superpixels, the package's own answers, and its seed."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from lime.lime_image import LimeImageExplainer
from lime.wrappers.scikit_image import SegmentationAlgorithm
from sklearn.metrics import adjusted_rand_score
from torch import Tensor

from medfusion import network
from medfusion.errors import Cancelled, ExplanationError
from medfusion.explain import explain
from medfusion.explain import lime as subject
from medfusion.explain.heatmap import positive_part
from medfusion.explain.lime import NEGLIGIBLE, LimeSettings, contiguous, expected_order, standard_errors
from medfusion.imaging import display
from medfusion.inference import log_odds, score
from medfusion.preprocess import squash
from medfusion.samples import read_sample
from medfusion.types import InputSpec
from tests.core.toy_networks import DOT_PX, ToyNet, corner, dotted, model_of, one_class_a_quadrant, scan_of

CENTRES = ((11, 11), (11, 51), (51, 11), (51, 51))  # of one dot in each quadrant


def one_dot_a_quadrant() -> np.ndarray:
    picture = np.zeros((64, 64), np.uint8)
    for row, column in CENTRES:
        picture[row - 1 : row - 1 + DOT_PX, column - 1 : column - 1 + DOT_PX] = 255
    return picture


def linear_model():
    """The log-odds of "yes" are the weighted sum of the dots."""
    return model_of(ToyNet([[0.4, 0.2, -0.2, 0]]), ("no", "yes"), task="binary")


def test_weights_of_a_linear_model_are_recovered():
    explanation = explain(linear_model(), scan_of(one_dot_a_quadrant()), 1, "lime", settings={"superpixels": 16})
    # Hiding the superpixel of a dot turns its pixels to a dark mean: the log-odds fall by the dot's own weight.
    at_dots = [explanation.raw[centre] for centre in CENTRES]
    assert at_dots == pytest.approx([0.4, 0.2, -0.2, 0], abs=0.01)  # the ridge shrinks by under 2 %
    assert set(np.unique(explanation.evidence)) == {0, *at_dots[:3]}  # nothing anywhere else
    assert explanation.fit == pytest.approx(1, abs=0.01)


def test_the_heatmap_is_the_positive_weights_over_the_largest():
    explanation = explain(linear_model(), scan_of(one_dot_a_quadrant()), 1, "lime", settings={"superpixels": 16})
    assert [explanation.heatmap[centre] for centre in CENTRES] == pytest.approx([1, 0.5, 0, 0], abs=0.03)
    assert [explanation.signed[centre] for centre in CENTRES] == pytest.approx([1, 0.5, -0.5, 0], abs=0.03)


def test_superpixels_keep_their_edges_on_a_larger_scan():
    large = np.kron(one_dot_a_quadrant(), np.ones((5, 5), np.uint8))
    explanation = explain(linear_model(), scan_of(large), 1, "lime", settings={"superpixels": 16})
    assert (
        len(np.unique(explanation.signed)) == len(np.unique(explanation.evidence)) == 4
    )  # no value between two patches


def test_the_two_classes_of_a_binary_model_have_opposite_weights():
    scan = scan_of(one_dot_a_quadrant())
    yes, no = (explain(linear_model(), scan, target, "lime", settings={"superpixels": 16}).raw for target in (1, 0))
    assert yes == pytest.approx(-no, abs=1e-4)


@pytest.mark.parametrize("target", [0, 2])
@pytest.mark.parametrize("seed", [0, 7])
def test_answers_are_those_of_the_package_itself(target, seed):
    model, frame = one_class_a_quadrant(0.1), dotted(0, 1, 2)
    settings = {"samples": 203, "balanced": False, "superpixels": 20, "batch_size": 50}  # the last batch is a short one
    picture = squash(frame, model.card.input)
    segments = subject.slic(picture, 20)

    def odds(pictures: np.ndarray) -> np.ndarray:
        probabilities = score(model, pictures).astype(np.float64)
        return np.log(probabilities / (1 - probabilities))

    package = LimeImageExplainer(random_state=seed).explain_instance(
        picture,
        odds,
        labels=(target,),
        top_labels=None,
        num_samples=203,
        segmentation_fn=lambda _: segments,
        random_seed=seed,
    )
    weights = dict(package.local_exp[target])
    expected = np.vectorize(weights.get)(segments)
    found = explain(model, scan_of(frame), target, "lime", seed=seed, settings=settings)
    assert np.abs(expected).max() > 0.1
    assert found.raw == pytest.approx(expected, abs=1e-3)
    assert found.fit == pytest.approx(package.score, abs=1e-3)


def test_balanced_draws_come_to_the_weights_of_the_package_on_a_linear_model():
    scan, model = scan_of(one_dot_a_quadrant()), linear_model()
    own, package = (
        explain(model, scan, 1, "lime", settings={"superpixels": 16, "settle": 1.0} | more).raw
        for more in ({}, {"samples": 1000, "balanced": False})
    )
    assert own == pytest.approx(package, abs=1e-3)


def test_the_batch_size_does_not_change_the_map():
    model, scan = one_class_a_quadrant(0.1), scan_of(dotted(0, 1))
    one, other = (
        explain(model, scan, 0, "lime", settings={"samples": 100, "superpixels": 16, "batch_size": size}).raw
        for size in (7, 100)
    )
    assert one == pytest.approx(other, abs=1e-5)


def test_the_seed_decides_the_draws():
    model, scan = one_class_a_quadrant(), scan_of(dotted(0, 3))

    def raw(seed: int) -> np.ndarray:
        return explain(model, scan, 0, "lime", seed=seed, settings={"samples": 60, "superpixels": 16}).raw

    assert np.array_equal(raw(3), raw(3))
    assert not np.array_equal(raw(3), raw(4))


def test_more_superpixels_make_smaller_patches():
    model, scan = one_class_a_quadrant(), scan_of(dotted(0, 1, 2, 3))
    few, many = (
        len(np.unique(explain(model, scan, 0, "lime", settings={"superpixels": count, "samples": 100}).raw))
        for count in (4, 60)
    )
    assert few < many


def test_weights_that_move_nothing_count_as_none():
    model = model_of(ToyNet([[0.005, 0, 0, 0]]), ("no", "yes"), task="binary")  # a dot moves the odds by 0.5 %
    explanation = explain(model, scan_of(one_dot_a_quadrant()), 1, "lime", settings={"superpixels": 16})
    assert not explanation.evidence.any()
    assert not explanation.has_positive_evidence


def test_positive_weights_that_chance_explains_count_as_none():
    """Only negative evidence, on a saturated curve: what few samples leave positive is noise, not a faint map."""
    model = model_of(ToyNet([[-0.3, 0, 0, 0]]), ("no", "yes"), task="binary")
    for seed in range(4):
        made = explain(model, scan_of(dotted(0)), 1, "lime", seed=seed, settings={"samples": 300, "superpixels": 16})
        assert made.evidence.max() == 0
        assert made.evidence.min() < -0.1


def test_standard_errors_of_independent_draws_are_those_of_least_squares():
    rng = np.random.default_rng(0)
    data, left = rng.integers(0, 2, (4000, 9)), rng.normal(0, 0.3, 4000)
    assert standard_errors(data, left, np.ones(4000), 1) == pytest.approx(0.3 / np.sqrt(4000 / 4), rel=0.05)


def test_what_two_superpixels_do_together_is_no_error_of_opposite_draws():
    rng = np.random.default_rng(0)
    half = rng.integers(0, 2, (500, 9))
    data = np.stack([half, 1 - half], axis=1).reshape(-1, 9)
    left = (data[:, 0] == data[:, 1]) - 0.5  # the same in both of a pair
    single, paired = (standard_errors(data, left, np.ones(1000), together) for together in (1, 2))
    assert single.mean() > 0.02
    assert paired.max() < 1e-6


@pytest.mark.parametrize("superpixels", [3, 16, 31, 36, 64])
def test_balanced_draws_show_any_three_superpixels_in_all_ways_equally_often(superpixels):
    rows = 2 << superpixels.bit_length()
    made = subject.balanced_draws(3 * rows, superpixels, np.random.RandomState(0))
    assert made.shape == (3 * rows, superpixels)
    assert (made[::2] + made[1::2] == 1).all()  # each second row is the opposite of the one before
    for block in np.split(made, 3):
        signs = 2 * block - 1
        assert (signs.sum(0) == 0).all()
        assert np.array_equal(signs.T @ signs, rows * np.eye(superpixels))
        assert (np.einsum("ni,nj,nk->ijk", signs, signs, signs) == 0).all()
    assert not np.array_equal(made[:rows], made[rows : 2 * rows])


def test_each_balanced_draw_is_as_likely_as_with_the_package():
    chance = np.random.RandomState(0)
    shown = np.array([subject.balanced_draws(2, 12, chance)[0] for _ in range(4000)])
    assert shown.mean(0) == pytest.approx(0.5, abs=0.04)
    assert shown.sum(1).var() == pytest.approx(12 / 4, rel=0.1)  # binomial: superpixels of a row are independent


def test_balanced_draws_are_surer_than_as_many_of_the_package():
    """A model of superpixels that act by themselves, in twos, and less in threes: the spread of weights over seeds."""
    rng = np.random.default_rng(0)
    own, (i, j, k) = rng.normal(size=20), rng.integers(0, 20, (3, 60))
    explainer = subject.TensorLime(linear_model(), 0, 0, LimeSettings(), lambda *_: None)

    def spread_of(draws) -> float:
        found = []
        for seed in range(12):
            data = draws(np.random.RandomState(seed))
            data[0] = 1
            signs = 2 * data - 1
            odds = data @ own + (signs[:, i] * signs[:, j] * (1 + signs[:, k] / 4) * 0.3).sum(1)
            found.append(explainer.fitted(data, odds[:, None])[0])
        return float(np.std(found, axis=0).mean())

    balanced = spread_of(lambda chance: subject.balanced_draws(256, 20, chance))
    package = spread_of(lambda chance: chance.randint(0, 2, (256, 20)))
    assert balanced < 0.8 * package


def test_what_touching_superpixels_do_together_blurs_no_weights():
    """Twenty in four rows; each is stronger where its neighbours are shown as it is, in threes and twos."""
    segments = np.arange(20).reshape(4, 5)
    near = subject.touching(segments)
    own = np.random.default_rng(0).normal(size=20)
    explainer = subject.TensorLime(linear_model(), 0, 0, LimeSettings(), lambda *_: None)

    def odds(data: np.ndarray) -> np.ndarray:
        grid = (2 * data - 1).reshape(-1, 4, 5)
        threes = grid[:, :, :-2] * grid[:, :, 1:-1] * grid[:, :, 2:]
        twos = grid[:, 1:] * grid[:, :-1]
        return (data @ own + threes.sum((1, 2)) / 10 + twos.sum((1, 2)) / 10)[:, None]

    def weights(seed: int) -> tuple[np.ndarray, np.ndarray]:
        data = subject.balanced_draws(320, 20, np.random.RandomState(seed))
        data[0] = 1
        plain, *_, process = explainer.foretold(data, odds(data), near)
        return plain, explainer.steadied(plain, process)

    plain, steadied = np.swapaxes([weights(seed) for seed in range(8)], 0, 1)
    package = np.random.RandomState(0).randint(0, 2, (20_000, 20))
    package[0] = 1
    expected = explainer.fitted(package, odds(package), 20.0)[0]
    assert steadied.std(0).mean() < 0.6 * plain.std(0).mean()
    assert steadied.mean(0) == pytest.approx(expected, abs=0.05)


def test_superpixels_touch_where_pixels_lie_side_by_side():
    near = subject.touching(np.array([[0, 0, 1], [2, 2, 1], [2, 2, 3]]))
    assert near.astype(int).tolist() == [[1, 1, 1, 0], [1, 1, 1, 1], [1, 1, 1, 1], [0, 1, 1, 1]]


def test_expected_order_by_hand():
    weights = np.array([-0.5, -0.2, 0.1, 0.4])
    assert expected_order(weights, errors=np.zeros(4)) == pytest.approx(1)
    assert expected_order(weights, errors=np.full(4, 0.01)) == pytest.approx(1)  # nobody comes near another's place
    assert expected_order(weights, errors=np.full(4, 1e6)) == pytest.approx(0, abs=0.3)  # chance alone
    assert expected_order(np.zeros(4), errors=np.full(4, 1.0)) == 0  # nothing but error
    assert expected_order(np.zeros(4), errors=np.full(4, NEGLIGIBLE / 20)) == 1  # nothing at all


def test_one_superpixel_that_changes_places_with_a_neighbour_costs_half_of_what_that_costs():
    """Two of four that are all but equal, the one uncertain: rank correlation 0.8 when they change places, else 1."""
    assert expected_order(np.array([0.0, 1.0, 1.02, 2.0]), errors=np.array([0, 0.3, 0, 0])) == pytest.approx(
        0.9, abs=0.04
    )


def test_calibration_acts_on_what_is_explained():
    sharp = linear_model()
    calm = replace(sharp, card=replace(sharp.card, temperature=2.0))
    scan = scan_of(one_dot_a_quadrant())
    one, half = (explain(model, scan, 1, "lime", settings={"superpixels": 16}).raw for model in (sharp, calm))
    assert half == pytest.approx(one / 2, abs=1e-5)


def test_a_model_that_is_quite_sure_is_explained_too():
    """64 and more log-odds: the probability is 1 in float32, whatever is hidden."""
    model = model_of(ToyNet([[10, 5, 0, 0]]), ("no", "yes"), task="binary")
    scan = scan_of(dotted(0, 1))
    assert score(model, squash(scan.frames[0], model.card.input))[0, 1] == 1
    explanation = explain(model, scan, 1, "lime", settings={"superpixels": 16})
    assert explanation.heatmap[corner(0, 64, 64)].mean() > explanation.heatmap[corner(1, 64, 64)].mean() > 0.2
    assert explanation.heatmap[corner(2, 64, 64)].mean() < 0.1


def test_log_odds_by_hand():
    scores = torch.tensor([[1.0, 2.0, 5.0]]).log()  # probabilities 1/8, 2/8, 5/8
    assert log_odds(scores, "multiclass").exp().tolist()[0] == pytest.approx([1 / 7, 1 / 3, 5 / 3])
    assert log_odds(torch.tensor([[-1.5, 1.5]]), "binary").tolist()[0] == pytest.approx([-3, 3])
    assert log_odds(torch.tensor([[-1.5, 0.5]]), "multilabel").tolist() == [[-1.5, 0.5]]


def test_the_network_sees_batches_of_the_size_asked_for():
    sizes = []

    class Measuring(ToyNet):
        def extract(self, x: Tensor) -> Tensor:
            sizes.append(len(x))
            return super().extract(x)

    model = model_of(Measuring([[1, 0, 0, 0]]), ("no", "yes"), task="binary")
    settings = {"samples": 200, "superpixels": 16, "batch_size": 50, "settle": 1}
    explain(model, scan_of(dotted(0)), 1, "lime", settings=settings)
    # a look at the weights after 128, another after 64 more, and at last a closer one at the best superpixel
    assert sizes == [50, 50, 28, 50, 14, 8, 12]


def test_a_clear_case_stops_early_with_the_answer_of_all_samples():
    model, scan = linear_model(), scan_of(one_dot_a_quadrant())
    early, full = (
        explain(model, scan, 1, "lime", settings={"settle": settle}) for settle in (LimeSettings().settle, 1)
    )
    assert early.samples == subject.FEWEST
    assert full.samples == LimeSettings().samples
    assert early.raw == pytest.approx(full.raw, abs=2e-3)


def test_large_batches_are_not_split_by_looks():
    so_far = []
    settings = {"superpixels": 16, "samples": 400, "settle": 1, "batch_size": 128}
    explain(linear_model(), scan_of(one_dot_a_quadrant()), 1, "lime", settings=settings, partial_map=so_far.append)
    assert [one.samples for one in so_far] == [128, 256, 384, 400]


def test_a_toss_up_is_sampled_to_the_end():
    """Superpixels whose weights are chance alone change places without end."""
    noise = torch.Generator().manual_seed(0)

    class Noise(ToyNet):
        def decide(self, features: network.Features) -> Tensor:
            logits = super().decide(features)
            return logits + torch.randn(logits.shape, generator=noise)

    model = model_of(Noise([[0, 0, 0, 0]]), ("no", "yes"), task="binary")
    assert explain(model, scan_of(dotted(0)), 1, "lime", settings={"samples": 600}).samples == 600


def test_without_settling_every_sample_is_drawn():
    scan = scan_of(one_dot_a_quadrant())
    made = explain(linear_model(), scan, 1, "lime", settings={"superpixels": 16, "settle": 1})
    assert made.samples == LimeSettings().samples


def test_maps_so_far_are_handed_over_and_come_nearer():
    so_far = []
    scan = scan_of(one_dot_a_quadrant())
    settings = {"superpixels": 16, "samples": 400, "settle": 1}
    last = explain(linear_model(), scan, 1, "lime", settings=settings, partial_map=so_far.append)
    assert [one.samples for one in so_far] == [128, 192, 256, 320, 384, 400]
    errors = [np.abs(one.raw - last.raw).max() for one in so_far]
    assert errors[0] >= errors[2] >= errors[4] > errors[5] == 0
    assert so_far[0].heatmap.shape == last.heatmap.shape


def test_cancelled_half_way_no_further_batch_is_answered():
    sizes = []

    class Measuring(ToyNet):
        def extract(self, x: Tensor) -> Tensor:
            sizes.append(len(x))
            return super().extract(x)

    def stop_half_way(done: float) -> None:
        if done >= 0.5:
            raise Cancelled("Stopped.")

    model = model_of(Measuring([[1, 0, 0, 0]]), ("no", "yes"), task="binary")
    with pytest.raises(Cancelled):
        explain(
            model, scan_of(dotted(0)), 1, "lime", settings={"samples": 100, "batch_size": 10}, progress=stop_half_way
        )
    assert sizes == [10] * 5


@pytest.mark.parametrize(
    "settings", [{"samples": 1}, {"superpixels": 1}, {"batch_size": 0}, {"samples": -5}, {"batch_size": -1}]
)
def test_settings_that_cannot_work_are_refused_before_anything_runs(settings):
    with pytest.raises(ExplanationError, match="Choose larger values"):
        explain(one_class_a_quadrant(), scan_of(dotted(0)), 0, "lime", settings=settings)


def test_segment_labels_are_made_contiguous():
    assert contiguous(np.array([[5, 5, 9], [2, 9, 9]])).tolist() == [[1, 1, 2], [0, 2, 2]]


def test_superpixels_can_be_those_of_the_package_on_half_the_picture():
    picture = squash(display(read_sample("synthetic-chest")), InputSpec(224, 224))
    segmentation = LimeSettings(superpixels=None).segmentation()
    ours = segmentation(picture)
    package = SegmentationAlgorithm("quickshift", random_seed=0, **subject.QUICKSHIFT)(picture)
    assert ours.shape == package.shape
    assert ours.max() + 1 == pytest.approx(package.max() + 1, rel=0.25)
    assert adjusted_rand_score(ours.ravel(), package.ravel()) > 0.5  # 0 where they have nothing in common
    assert np.array_equal(ours, segmentation(picture))  # for every seed, so that maps compare


@pytest.mark.parametrize("chance", [0, 255])
def test_flat_and_noisy_pictures_have_superpixels_all_the_same(chance):
    noise = np.random.default_rng(0).integers(0, chance, (96, 128, 3), np.uint8, endpoint=True)
    made = LimeSettings(superpixels=None).segmentation()(noise)
    assert made.shape == (96, 128)
    assert made.max() + 1 in subject.USUAL


def test_nothing_is_printed(capfd):
    explain(one_class_a_quadrant(), scan_of(dotted(0)), 0, "lime", settings={"samples": 20})
    assert capfd.readouterr() == ("", "")


def test_the_real_network_can_be_explained():
    model = model_of(network.build("tiny", 2), ("no", "yes"), height_px=64, width_px=64)
    explanation = explain(model, scan_of(dotted(0, 3)), 1, "lime", settings={"samples": 24, "superpixels": 8})
    assert explanation.raw.shape == (64, 64)
    assert torch.is_grad_enabled()


def test_the_strongest_place_of_a_large_superpixel_is_near_the_evidence():
    model = model_of(ToyNet([[3.0, 3.0, 3.0, 3.0]]), ("no", "yes"), task="binary")

    def away(heatmap: np.ndarray) -> float:
        return float(
            np.linalg.norm(np.subtract(np.unravel_index(heatmap.argmax(), heatmap.shape), (row + 1, column + 1)))
        )

    found = []
    for row, column in ((3, 3), (3, 26), (26, 3), (26, 26), (36, 58), (58, 36)):  # far from the middles of superpixels
        frame = np.zeros((64, 64), np.uint8)
        frame[row : row + DOT_PX, column : column + DOT_PX] = 255
        made = explain(model, scan_of(frame), 1, "lime", settings={"superpixels": 4, "samples": 64})
        best = made.evidence == made.evidence.max()
        assert best.sum() > 500  # px, all of them equal
        assert made.heatmap[best].min() > 0.998
        found.append((away(made.heatmap), away(positive_part(made.evidence))))
    closer, middle = np.mean(found, axis=0)
    assert closer < 7
    assert closer < 0.6 * middle


def test_without_positive_evidence_there_is_no_closer_look():
    model = model_of(ToyNet([[-3.0, 0, 0, 0]]), ("no", "yes"), task="binary")
    found = subject.attribute(model, squash(dotted(0), model.card.input), 1, 0, LimeSettings(), lambda *_: None)
    assert found.evidence.max() <= 0
    assert found.closer is None
