"""Each corruption does what its name says, more of it at each severity, and the same each time."""

import numpy as np
import pytest
from PIL import Image
from torch import Tensor, nn

from medfusion.corruptions import CORRUPTIONS, SEVERITIES, corrupt, robustness
from medfusion.labelled import read_labelled
from tests.core.toy_networks import model_of


@pytest.fixture
def picture() -> np.ndarray:
    """(224, 224, 3): a grainy slope with a sharp bright square away from the middle."""
    slope = np.linspace(40, 170, 224)[:, None] + np.linspace(0, 30, 224)
    slope[40:90, 120:180] = 230
    slope += np.random.default_rng(1).normal(0, 6, slope.shape)  # tissue is never smooth
    return np.dstack([slope] * 3).astype(np.uint8)


@pytest.mark.parametrize("name", CORRUPTIONS)
def test_a_corruption_is_the_same_each_time_and_stronger_with_severity(name, picture):
    before = picture.copy()
    out = [corrupt(picture, name, severity, case=3) for severity in SEVERITIES]
    assert np.array_equal(picture, before)
    assert all(o.shape == picture.shape and o.dtype == np.uint8 for o in out)
    assert np.array_equal(out[2], corrupt(picture, name, 3, case=3))
    change = [difference(picture, name, severity) for severity in SEVERITIES]
    assert change[0] > 0
    assert change == sorted(change)


def difference(picture: np.ndarray, name: str, severity: int) -> float:
    """The mean change of a pixel, over a few cases."""
    return float(np.mean([np.abs(corrupt(picture, name, severity, case).astype(int) - picture) for case in range(8)]))


def test_gamma_and_brightness_go_both_ways(picture):
    for name in ("gamma", "brightness"):
        means = [corrupt(picture, name, 3, case).mean() for case in range(12)]
        assert min(means) < picture.mean() < max(means)


def test_cropping_and_border_change_the_size_of_things(picture):
    bright = (picture > 200).sum()
    assert (corrupt(picture, "cropping", 5, 0) > 200).sum() > 1.3 * bright
    framed = corrupt(picture, "border", 3, 0)
    assert (framed > 200).sum() < 0.8 * bright
    assert not framed[:10].any()
    assert not framed[:, -10:].any()


def test_text_is_white_and_near_the_corners(picture):
    written = corrupt(picture, "text", 3, 0)
    changed = (written != picture).any(axis=2)
    assert 0.002 < changed.mean() < 0.1
    assert not changed[80:140].any()
    assert written[changed].max() == 255


class Middle(nn.Module):
    """Bright middle speaks for the second class: hidden by nothing here, so only brightness and contrast can harm."""

    def forward(self, x: Tensor) -> Tensor:
        return x[:, :, 24:40, 24:40].mean((1, 2, 3))[:, None] * 20 - 10


def test_robustness_counts_the_loss_of_auroc(tmp_path):
    for index in range(40):
        label = index % 2
        grey = np.full((64, 64), 120, np.uint8)
        grey[24:40, 24:40] = 120 + (3 if label else -3)
        (tmp_path / str(label)).mkdir(exist_ok=True)
        Image.fromarray(grey).save(tmp_path / str(label) / f"{index}.png")
    model = model_of(Middle(), ("0", "1"), "binary")
    found = robustness(model, read_labelled(tmp_path), severities=(1, 3))
    assert found["n"] == 40
    assert found["auroc"] == pytest.approx(1.0)
    assert found["drops"]["contrast"]["3"] == pytest.approx(0.0)  # order is kept
    assert found["drops"]["brightness"]["3"] > 0.1  # up or down by chance swamps a difference of 6
    assert found["mean_drop"] == pytest.approx(np.mean([drop["3"] for drop in found["drops"].values()]))
    assert found == robustness(model, read_labelled(tmp_path), severities=(1, 3))
