"""Where cells of a map look, for networks whose displacement is worked out by hand, and for the real one."""

import numpy as np
import pytest
import torch
from torch import nn

from medfusion import network
from medfusion.explain.heatmap import to_scan_grid
from medfusion.explain.sight import shift_of
from tests.core.toy_networks import model_of, one_class_a_quadrant


class Stack(nn.Module):
    """Convolutions of ones with stride 2 and symmetric padding, as many as asked for."""

    def __init__(self, count: int, kernel: torch.Tensor | None = None) -> None:
        super().__init__()
        taken = torch.ones(3, 3) if kernel is None else kernel
        layers = [nn.Conv2d(3 if not n else 1, 1, 3, stride=2, padding=1, bias=False) for n in range(count)]
        for layer in layers:
            layer.weight = nn.Parameter(taken.expand_as(layer.weight).clone())
        self.extract = nn.Sequential(*layers)


@pytest.mark.parametrize(("count", "shift"), [(1, -0.25), (2, -0.375), (4, -0.46875)])
def test_symmetric_padding_looks_half_a_pixel_early_at_every_stride(count, shift):
    """Cell i of one layer looks around pixel 2i, half a pixel before the middle of its two: a quarter of a cell."""
    assert shift_of(model_of(Stack(count), height_px=224, width_px=160)) == pytest.approx(shift, abs=0.05)


def test_a_lopsided_kernel_looks_aside():
    kernel = torch.zeros(3, 3)
    kernel[2, 2] = 1  # the last pixel: half a pixel behind the middle of the patch
    assert shift_of(model_of(Stack(1, kernel), height_px=64, width_px=64)) == pytest.approx(0.25, abs=0.05)


def test_cells_that_average_their_own_patch_look_straight():
    assert shift_of(one_class_a_quadrant()) == 0


def test_the_real_network_looks_half_a_cell_early():
    found = shift_of(model_of(network.build("tiny", 2), height_px=224, width_px=224))
    assert found == pytest.approx(-0.47, abs=0.15)  # 7.5 of 16 px, by its four strides


def test_a_silent_network_is_not_moved():
    assert shift_of(model_of(Stack(2, torch.zeros(3, 3)))) == 0


@pytest.mark.parametrize("shift", [-0.8, 0.3])
def test_a_spot_is_drawn_where_its_cell_looks(shift):
    raw = np.zeros((7, 10), np.float32)
    raw[3, 6] = 1
    on_scan = to_scan_grid(raw, 350, 400, shift=shift)
    y, x = np.mgrid[:350, :400] + 0.5
    centre = (on_scan * y).sum() / on_scan.sum(), (on_scan * x).sum() / on_scan.sum()
    assert centre == pytest.approx(((3.5 + shift) * 50, (6.5 + shift) * 40), abs=1)


def test_a_hardly_moved_map_is_hardly_another():
    raw = np.random.default_rng(0).normal(size=(7, 10)).astype(np.float32)
    assert to_scan_grid(raw, 80, 90, shift=1e-6) == pytest.approx(to_scan_grid(raw, 80, 90), abs=1e-3)
