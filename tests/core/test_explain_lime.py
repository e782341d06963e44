"""LIME: the weights of models that are linear in superpixels, the package's own answers, and its seed."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from lime.lime_image import LimeImageExplainer
from torch import Tensor

from medfusion import network
from medfusion.errors import Cancelled, ExplanationError
from medfusion.explain import explain
from medfusion.explain import lime as subject
from medfusion.explain.lime import LimeSettings, contiguous, expected_correlation, standard_error
from medfusion.inference import log_odds, score
from medfusion.preprocess import squash
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
    settings = {"samples": 203, "paired": False, "superpixels": 20, "batch_size": 50}  # the last batch is a short one
    picture = squash(frame, model.card.input)
    segments = []

    def same_segments(image: np.ndarray) -> np.ndarray:
        slic = subject.SegmentationAlgorithm(
            "slic", n_segments=20, compactness=subject.COMPACTNESS, sigma=1, start_label=0
        )
        segments.append(contiguous(slic(image)))
        return segments[0]

    def odds(pictures: np.ndarray) -> np.ndarray:
        probabilities = score(model, pictures).astype(np.float64)
        return np.log(probabilities / (1 - probabilities))

    package = LimeImageExplainer(random_state=seed).explain_instance(
        picture,
        odds,
        labels=(target,),
        top_labels=None,
        num_samples=203,
        segmentation_fn=same_segments,
        random_seed=seed,
    )
    weights = dict(package.local_exp[target])
    expected = np.vectorize(weights.get)(segments[0])
    found = explain(model, scan_of(frame), target, "lime", seed=seed, settings=settings)
    assert np.abs(expected).max() > 0.1
    assert found.raw == pytest.approx(expected, abs=1e-3)
    assert found.fit == pytest.approx(package.score, abs=1e-3)


def test_pairs_come_to_the_weights_of_the_package_on_a_linear_model():
    scan, model = scan_of(one_dot_a_quadrant()), linear_model()
    own, package = (
        explain(model, scan, 1, "lime", settings={"superpixels": 16, "settle": 1.0} | more).raw
        for more in ({}, {"samples": 1000, "paired": False})
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


def test_the_standard_error_of_independent_draws_is_that_of_least_squares():
    rng = np.random.default_rng(0)
    data, left = rng.integers(0, 2, (4000, 9)), rng.normal(0, 0.3, 4000)
    assert standard_error(data, left, np.ones(4000), 1) == pytest.approx(0.3 / np.sqrt(4000 / 4), rel=0.05)


def test_what_two_superpixels_do_together_is_no_error_of_opposite_draws():
    rng = np.random.default_rng(0)
    half = rng.integers(0, 2, (500, 9))
    data = np.stack([half, 1 - half], axis=1).reshape(-1, 9)
    left = (data[:, 0] == data[:, 1]) - 0.5  # the same in both of a pair
    single, paired = (standard_error(data, left, np.ones(1000), together) for together in (1, 2))
    assert single > 0.02
    assert paired < 1e-6


def test_each_second_draw_is_the_opposite_of_the_one_before():
    seen = []

    def keep(batch: Tensor) -> Tensor:
        seen.append(batch.clone())
        return batch.sum((1, 2, 3))[:, None]

    model = linear_model()
    explainer = subject.TensorLime(model, 0, 3, LimeSettings(samples=31, superpixels=16), lambda *_: None)
    image = squash(one_dot_a_quadrant(), model.card.input)
    segments = np.arange(image.shape[0])[:, None] // 16 * 4 + np.arange(image.shape[1]) // 16
    data, told = explainer.data_labels(image, np.zeros_like(image), segments, keep_numpy(keep), 31, 8)
    assert data.shape == (31, 16)
    assert len(told) == 31
    assert (data[0] == 1).all()
    assert (data[2:30:2] + data[3:31:2] == 1).all()
    assert len(np.unique(data[2::2], axis=0)) > 10


def keep_numpy(answer):
    return lambda batch: answer(batch).numpy()


def test_expected_correlation_by_hand():
    weights = np.array([-0.5, 0.5, -0.5, 0.5])  # variance 0.25
    assert expected_correlation(weights, error=0.0) == 1
    assert expected_correlation(weights, error=0.3) == pytest.approx(0.8)  # 0.09 of 0.25 is the error's
    assert expected_correlation(weights, error=0.6) == 0  # the error explains all of it
    assert expected_correlation(np.zeros(4), error=0.1) == 0  # nothing but error
    assert expected_correlation(np.zeros(4), error=0.0) == 1  # nothing at all: more samples change nothing


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
    explain(model, scan_of(dotted(0)), 1, "lime", settings={"samples": 100, "superpixels": 16, "batch_size": 40})
    assert sizes == [40, 24, 36]  # a look at the order after 64


def test_a_clear_case_stops_early_with_the_answer_of_all_samples():
    model, scan = linear_model(), scan_of(one_dot_a_quadrant())
    early, full = (explain(model, scan, 1, "lime", settings={"settle": settle}) for settle in (0.99, 1))
    assert early.samples == subject.FEWEST
    assert full.samples == LimeSettings().samples
    assert early.raw == pytest.approx(full.raw, abs=2e-3)


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
    settings = {"superpixels": 16, "samples": 200, "settle": 1}
    last = explain(linear_model(), scan, 1, "lime", settings=settings, partial_map=so_far.append)
    assert [one.samples for one in so_far] == [64, 128, 192, 200]
    errors = [np.abs(one.raw - last.raw).max() for one in so_far]
    assert errors[0] >= errors[1] >= errors[2] > errors[3] == 0
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


def test_nothing_is_printed(capfd):
    explain(one_class_a_quadrant(), scan_of(dotted(0)), 0, "lime", settings={"samples": 20})
    assert capfd.readouterr() == ("", "")


def test_the_real_network_can_be_explained():
    model = model_of(network.build("tiny", 2), ("no", "yes"), height_px=64, width_px=64)
    explanation = explain(model, scan_of(dotted(0, 3)), 1, "lime", settings={"samples": 24, "superpixels": 8})
    assert explanation.raw.shape == (64, 64)
    assert torch.is_grad_enabled()
