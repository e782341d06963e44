"""From picture to network input, on pictures whose answer can be worked out by hand."""

import numpy as np
import pytest
import torch
from PIL import Image

from medfusion.preprocess import squash, standardise, to_batch
from medfusion.types import InputSpec

SPEC = InputSpec(32, 64)


def texture(height: int, width: int) -> np.ndarray:
    """Smooth waves in three colours, (height, width, 3) uint8."""
    y, x = np.mgrid[0:height, 0:width]
    waves = [np.sin(2 * np.pi * (a * y / height + b * x / width)) for a, b in ((1, 2), (2, 1), (3, 0))]
    return (127.5 + 120 * np.stack(waves, axis=2)).round().astype(np.uint8)


def test_shrinking_weighs_all_pixels_under_the_triangle():
    step = np.tile(np.repeat(np.array([10, 50], np.uint8), 64), (64, 1))  # left half 10, right half 50
    small = squash(step, InputSpec(32, 32))
    assert small.shape == (32, 32, 3)
    assert small.dtype == np.uint8
    # Four columns become one, under a triangle that reaches four to each side. Beside the step, pixels at distance
    # 2.5 and 3.5 lie beyond it: their weights 3/8 and 1/8 are an eighth of the sum, 4.
    assert small[0, 14:18, 0].tolist() == [10, 15, 45, 50]
    assert (small == small[:1, :, :1]).all()


def test_enlarging_a_step_interpolates_linearly():
    picture = np.array([[0, 100], [0, 100]], np.uint8)
    enlarged = squash(picture, InputSpec(4, 4))
    assert enlarged[:, :, 0].tolist() == [[0, 25, 75, 100]] * 4  # centres at -1/4, 1/4, 3/4, 5/4


def test_fine_stripes_turn_grey_and_leave_no_moire():
    stripes = np.zeros((256, 256), np.uint8)
    stripes[:, ::2] = 200
    small = squash(stripes, InputSpec(32, 32))
    assert (small[:, 1:-1] == 100).all()  # the triangle is cut off in the outermost columns


def test_both_sides_are_squashed_to_the_models_size_whatever_the_aspect():
    picture = np.zeros((100, 400), np.uint8)
    picture[:, 200:] = 255
    small = squash(picture, SPEC)
    assert small.shape == (32, 64, 3)
    assert (small[:, :31] == 0).all()
    assert (small[:, 33:] == 255).all()


def test_grey_is_read_as_rgb_with_equal_channels():
    grey = texture(80, 100)[..., 0]
    assert torch.equal(to_batch(grey, SPEC), to_batch(np.repeat(grey[..., None], 3, axis=2), SPEC))


def test_a_picture_of_the_right_size_keeps_its_pixels():
    picture = texture(32, 64)
    assert np.array_equal(squash(picture, SPEC), picture)


def test_the_callers_picture_is_not_changed():
    picture = texture(32, 64)
    kept = picture.copy()
    to_batch(picture, SPEC).zero_()
    assert np.array_equal(picture, kept)


def test_read_only_and_strided_pictures_are_taken():
    picture = texture(64, 128)
    expected = to_batch(picture[:, ::-1].copy(), SPEC)
    picture.flags.writeable = False
    assert torch.equal(to_batch(picture[:, ::-1], SPEC), expected)
    small = picture[::2, ::2]
    assert torch.equal(to_batch(small, SPEC), to_batch(small.copy(), SPEC))
    stack = np.stack([small, small])
    stack.flags.writeable = False
    assert torch.equal(to_batch(stack[:, ::-1], SPEC), to_batch(stack[:, ::-1].copy(), SPEC))


def test_intensities_follow_the_efficientnet_lite_convention():
    pictures = torch.tensor([0, 127, 255], dtype=torch.uint8).reshape(1, 3, 1, 1)
    expected = torch.tensor([-127 / 128, 0.0, 1.0]).reshape(1, 3, 1, 1)  # (x - 127) / 128
    torch.testing.assert_close(standardise(pictures, InputSpec()), expected)


def test_mean_and_deviation_come_from_the_card():
    pictures = torch.full((1, 3, 1, 1), 255, dtype=torch.uint8)
    assert standardise(pictures, InputSpec(mean=0.5, std=0.25)).flatten().tolist() == [2.0, 2.0, 2.0]


def test_a_batch_is_float32_channels_first_and_keeps_its_colours():
    picture = np.zeros((32, 64, 3), np.uint8)
    picture[..., 0] = 255
    batch = to_batch(picture, SPEC)
    assert batch.dtype == torch.float32
    assert batch.shape == (1, 3, 32, 64)
    assert batch.is_contiguous(memory_format=torch.channels_last)
    assert batch[0, :, 0, 0].tolist() == pytest.approx([1.0, -127 / 128, -127 / 128])


@pytest.mark.parametrize("size", [(32, 64), (50, 70)])
def test_a_stack_equals_its_pictures_one_by_one(size):
    stack = np.stack([texture(*size), 255 - texture(*size), texture(*size)[::-1]])
    expected = torch.cat([to_batch(picture, SPEC) for picture in stack])
    assert torch.equal(to_batch(stack, SPEC), expected)


def test_a_picture_published_squashed_reads_as_the_original_does():
    original = texture(300, 470)
    published = np.asarray(Image.fromarray(original).resize((224, 224), Image.Resampling.BILINEAR))
    difference = to_batch(original, InputSpec()) - to_batch(published, InputSpec())
    assert difference.abs().max() <= 2 / 128  # rounding on each side
