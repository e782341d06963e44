"""What the network answers to a picture while some of its superpixels are hidden: many answers, for one picture.

A cell of the network's early map sees 19 px, so few superpixels. Those that no cell sees together share a colour, and
pictures that show and hide the colours in all ways hold each cell as any masked picture has it. So the early maps of
hundreds of masked pictures are put together from some 32, exactly, and only the rest of the network runs for each.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import reduce

import cv2
import networkx
import numpy as np
import torch
from torch import Tensor

from medfusion.library import Model
from medfusion.preprocess import to_batch

Answers = Callable[[np.ndarray], Tensor]  # (B, superpixels) of 0 and 1, as 1 is shown, to logits (B, outputs)
Half = Callable[[Tensor], Tensor]  # of the network: see Backend.halves
PAYS = 4  # to put early maps together: where so many times as many masked pictures are asked for as are needed for it


def answers(model: Model, image: np.ndarray, hidden: np.ndarray, segments: np.ndarray, count: int) -> Answers:
    """How the model answers masks of image, (h, w, 3) uint8, by the quickest way for so many.

    hidden: (h, w, 3) uint8, seen in place of superpixels that are not shown. segments: (h, w), each pixel's superpixel.
    """
    # to_batch treats each pixel alone, so both pictures can be mixed behind it.
    pair = to_batch(np.stack([image, hidden]), model.card.input).to(model.device).contiguous()
    halves = model.backend.halves()
    if halves:
        seen = cells_of(segments, *model.network.early_window)
        colours = coloured(seen)
        if PAYS * 2 ** bits_of(seen, colours) <= count:
            return Patchwork(*halves, pair, segments, seen, colours)
    return Whole(model, pair, segments)


class Whole:
    """Each masked picture passes through the whole network. pair: (2, 3, h, w), shown and hidden."""

    def __init__(self, model: Model, pair: Tensor, segments: np.ndarray) -> None:
        self.model, self.pair = model, pair
        self.places = torch.from_numpy(np.ascontiguousarray(segments)).to(model.device)
        self.mixed = pair[:0]  # fresh memory for each batch costs as much as mixing

    def __call__(self, rows: np.ndarray) -> Tensor:
        if len(self.mixed) < len(rows):
            self.mixed = self.pair[0].expand(len(rows), *self.pair[0].shape).clone()
        return self.model.logits(mixed(self.pair, rows, self.places, self.mixed[: len(rows)]), many=True)


class Patchwork:
    """Early maps are put together from those of few pictures, its ways to show and hide colours of superpixels.

    No cell sees all colours. So one that it does not see can make the number of those shown even, and half of all ways
    are enough: an orthogonal array of as much strength as a cell needs (Hedayat 1999, section 1.1).

    pair: (2, 3, h, w), shown and hidden. segments: (h, w), each pixel's superpixel.
    seen: (superpixels, h/4, w/4) bool, which cells see which. colours: (superpixels,), see `coloured`.
    """

    def __init__(
        self, early: Half, late: Half, pair: Tensor, segments: np.ndarray, seen: np.ndarray, colours: np.ndarray
    ) -> None:
        self.late = late
        bits = bits_of(seen, colours)
        ways = np.arange(2**bits)[:, None] >> np.arange(bits) & 1
        ways = np.column_stack([ways, ways.sum(1) % 2])[:, colours]
        maps = early(mixed(pair, ways, torch.from_numpy(np.ascontiguousarray(segments)))).numpy()
        self.maps = maps.reshape(-1, maps.shape[-1])  # a line for each cell of each way
        self.cells = np.arange(seen[0].size).reshape(seen[0].shape)
        own = np.stack([seen & (colours == colour)[:, None, None] for colour in range(bits + 1)])
        self.seen = np.where(own.any(1), own.argmax(1), -1)  # (colours, h/4, w/4): a superpixel, or -1
        unit = np.append(1 << np.arange(bits), 0)  # of a colour in a way's number; the last follows from the others
        self.adds = unit[:, None, None] ^ unit[self.seen.argmin(0)]  # each turns one that is not seen, too

    def __call__(self, rows: np.ndarray) -> Tensor:
        padded = np.pad(rows, ((0, 0), (0, 1)))  # at -1: not shown
        shown = (padded[:, one] * add for one, add in zip(self.seen, self.adds, strict=True))
        way = reduce(np.bitwise_xor, shown)
        return self.late(torch.from_numpy(self.maps[way * self.cells.size + self.cells]))


def mixed(pair: Tensor, rows: np.ndarray, places: Tensor, out: Tensor | None = None) -> Tensor:
    """(B, 3, h, w): shown where rows, (B, superpixels), are 1, and else hidden. places: (h, w) superpixels."""
    return torch.where(spread(rows == 1, places), pair[0], pair[1], out=out)


def spread(rows: np.ndarray, places: Tensor) -> Tensor:
    """(B, superpixels) bool to masks (B, 1, h, w) on the device of places: (h, w), each pixel's superpixel.

    NumPy takes a quarter of PyTorch's time on a CPU; elsewhere only the rows travel.
    """
    if places.device.type == "cpu":
        return torch.from_numpy(np.take(rows, places.numpy(), axis=1))[:, None]
    return torch.from_numpy(rows).to(places.device)[:, None, places]


def cells_of(segments: np.ndarray, stride: int, reach: int) -> np.ndarray:
    """(superpixels, h / stride, w / stride) bool: which cells see which superpixels, up to reach pixels around them."""
    window = np.ones((2 * reach + 1, 2 * reach + 1), np.uint8)
    own = ((segments == one).astype(np.uint8) for one in range(segments.max() + 1))
    return np.stack([cv2.dilate(mask, window)[::stride, ::stride] > 0 for mask in own])


def bits_of(seen: np.ndarray, colours: np.ndarray) -> int:
    """Two to the power of this many ways to show and hide colours hold all that a cell may see."""
    return int(max(colours.max(), seen.sum(0).max()))  # one less than there are colours, unless a cell sees all


def coloured(seen: np.ndarray) -> np.ndarray:
    """(superpixels,) colours from 0: no cell sees two superpixels of one. seen: (superpixels, …) bool."""
    flat = seen.reshape(len(seen), -1).astype(np.float32)
    found = networkx.greedy_color(networkx.from_numpy_array(flat @ flat.T > 0), "DSATUR")
    return np.array([found[one] for one in range(len(seen))])
