"""Each corruption does what its name says, more of it at each severity, and the same each time."""

import cv2
import numpy as np
import pytest
from PIL import Image
from torch import Tensor, nn

from medfusion import corruptions
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


@pytest.mark.parametrize("name", ["gamma", "brightness"])
def test_a_case_goes_the_same_way_at_all_severities(name, picture):
    for case in range(6):
        means = [picture.mean(), *(corrupt(picture, name, severity, case).mean() for severity in SEVERITIES)]
        assert means == sorted(means) or means == sorted(means, reverse=True)


def test_jpeg_takes_colours_for_what_they_are():
    """JPEG keeps brightness best; seen as blue, red would carry a third of it and come back coarser."""
    rng = np.random.default_rng(5)
    red = np.zeros((64, 64, 3), np.uint8)
    red[..., 0] = rng.integers(60, 200, (64, 64))
    blue = np.ascontiguousarray(red[..., ::-1])
    lost = [
        np.abs(corrupt(p, "jpeg", 3, 0)[..., channel].astype(int) - p[..., channel]).mean()
        for p, channel in ((red, 0), (blue, 2))
    ]
    assert lost[0] < lost[1]


def test_gamma_and_brightness_go_both_ways(picture):
    for name in ("gamma", "brightness"):
        means = [corrupt(picture, name, 3, case).mean() for case in range(12)]
        assert min(means) < picture.mean() < max(means)


def test_blur_takes_as_much_of_a_larger_picture(picture):
    large = cv2.resize(picture, (448, 448), interpolation=cv2.INTER_CUBIC)
    blurred = cv2.resize(corrupt(large, "blur", 5, 0), (224, 224), interpolation=cv2.INTER_AREA)
    unlike = np.abs(blurred.astype(int) - corrupt(picture, "blur", 5, 0)).mean()
    assert unlike < 0.2 * difference(picture, "blur", 5)


def test_noise_is_as_strong_in_a_larger_picture():
    def left_px(side_px):
        """What noise is left at 224 px."""
        grey = np.full((side_px, side_px, 3), 128, np.uint8)
        return cv2.resize(corrupt(grey, "noise", 3, 0), (224, 224), interpolation=cv2.INTER_AREA).std()

    assert left_px(448) == pytest.approx(left_px(224), rel=0.1)


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


def test_pictures_keep_their_chance_whatever_the_batch(tmp_path, monkeypatch):
    for index in range(9):
        (tmp_path / str(index % 2)).mkdir(exist_ok=True)
        grey = np.random.default_rng(index).integers(90, 150, (64, 64), dtype=np.uint8)
        Image.fromarray(grey).save(tmp_path / str(index % 2) / f"{index}.png")
    model, parts = model_of(Middle(), ("0", "1"), "binary"), []
    at_once = robustness(model, read_labelled(tmp_path))
    monkeypatch.setattr(corruptions, "BATCH", 4)
    assert robustness(model, read_labelled(tmp_path), progress=parts.append) == at_once
    assert parts == pytest.approx([4 / 9, 8 / 9, 1])


def test_the_drop_is_not_defined_where_a_class_is_absent(tmp_path):
    (tmp_path / "0").mkdir()
    Image.fromarray(np.full((64, 64), 120, np.uint8)).save(tmp_path / "0" / "0.png")
    found = robustness(model_of(Middle(), ("0", "1"), "binary"), read_labelled(tmp_path), severities=(2, 3))
    assert np.isnan(found["auroc"])
    assert np.isnan(found["mean_drop"])
    assert "mean_drop" not in robustness(model_of(Middle(), ("0", "1"), "binary"), read_labelled(tmp_path), (2,))
