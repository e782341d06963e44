"""Augmentation that suits medical pictures: what differs between sites, scanners and positioning, and nothing else.

A recipe works on one (h, w, 3) uint8 picture. MixUp and CutMix are left out: on small medical sets they cost accuracy.
OpenCV does the work: geometry is one warp and colour one matrix and one table, a tenth of the time of as many steps.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import cv2
import numpy as np
from skimage.color import hed_from_rgb, rgb_from_hed

GREY = np.full((3, 3), 1 / 3, dtype=np.float32)
DARK = 12  # what no camera's field shows is darker
NOTCHED = 0.3  # share of cameras' fields that have a notch: it tells which side is up
LIGHT_PX = 32  # side at which light is seen: it has no details
WHOLE = 0.5  # share of cameras' fields that are seen whole
DENSITY = -np.log((np.arange(256, dtype=np.float32) + 1) / 256)  # Beer-Lambert, of each 8-bit intensity
DENSITY_SHIFT = 0.2  # of a stain's density, at an amount of 1
MIDDLE = np.array([[127.5], [127.5], [127.5]], dtype=np.float32)


@dataclass(frozen=True)
class Recipe:
    smallest_crop: float = 0.5  # part of the area that a random crop keeps at least
    largest_crop: float = 1.0  # above 1 the picture shrinks and black borders show
    aspect: float = 1.25  # widest stretch of a side: squashed sets meet uploads of other aspect ratios
    rotation_deg: float = 10
    flip_horizontal: float = 0.5
    flip_vertical: float = 0.0
    brightness: float = 0.25
    contrast: float = 0.3
    saturation: float = 0.0
    hue_deg: float = 0.0
    stain: float = 0.0  # how much denser or paler haematoxylin and eosin may each become
    turns: bool = False  # whether a quarter turn shows as good a picture
    endless: bool = False  # whether tissue goes on beyond the picture: mirrored there, not black
    erase: float = 0.1  # probability of one hidden rectangle
    field: float = 0.0  # probability of the round field of view of another camera
    light: float = 0.0  # probability of another camera's light: evener or less even, and of another colour
    equalise: float = 0.0  # probability of an equalised histogram, as some viewers store pictures
    degrade: float = 0.3  # probability each of gamma, blur, sharpening, noise and JPEG


RECIPES: Mapping[str, Recipe] = {
    "general": Recipe(saturation=0.1, hue_deg=7),
    "radiograph": Recipe(smallest_crop=0.4, largest_crop=1.2, aspect=1.5, brightness=0.35, contrast=0.4, equalise=0.15),
    "ultrasound": Recipe(rotation_deg=8, brightness=0.3),
    "ct": Recipe(largest_crop=1.1, aspect=1.4),
    "mri": Recipe(smallest_crop=0.75, largest_crop=1.1, rotation_deg=15, erase=0.0),  # a small tumour stays in view
    "fundus": Recipe(
        smallest_crop=0.6,
        largest_crop=1.3,
        aspect=1.4,
        rotation_deg=30,
        flip_vertical=0.5,
        saturation=0.3,
        hue_deg=10,
        field=0.85,
        light=0.6,
        erase=0.0,
    ),
    "histology": Recipe(
        smallest_crop=0.6,
        aspect=1.15,
        rotation_deg=15,
        flip_vertical=0.5,
        turns=True,
        endless=True,
        saturation=0.1,
        hue_deg=5,
        stain=0.25,
        erase=0.0,
        degrade=0.2,
    ),
}


def augment(picture: np.ndarray, recipe: Recipe, side_px: int, rng: np.random.Generator) -> np.ndarray:
    """A random variant (side_px, side_px, 3) of an (h, w, 3) uint8 picture, the same for the same generator state."""
    if rng.random() < recipe.light:
        picture = relight(picture, rng)
    if rng.random() < recipe.field:
        picture = refield(picture, rng)
    if recipe.stain:
        picture = restain(picture, recipe.stain, rng)
    picture = _warp(picture, recipe, side_px, rng)
    if rng.random() < recipe.equalise:
        picture = np.dstack([cv2.equalizeHist(np.ascontiguousarray(picture[..., i])) for i in range(3)])
    picture = _colour(picture, recipe, rng)
    for degrade in (gamma, blur, sharpen, noise, compress):
        if rng.random() < recipe.degrade:
            picture = degrade(picture, rng)
    if rng.random() < recipe.erase:
        height, width = (int(side_px * s) for s in rng.uniform(0.14, 0.35, 2))
        top, left = int(rng.integers(side_px - height)), int(rng.integers(side_px - width))
        picture[top : top + height, left : left + width] = 0
    return picture


def refield(picture: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """The round field of another camera: what is seen becomes an ellipse, now and then with a notch, cut more or less.

    In collections from several sources the shape of the field tells the source, and with it the class.
    """
    seen = picture.max(axis=2) > DARK
    rows, columns = (np.flatnonzero(seen.mean(axis=axis) > 0.02) for axis in (1, 0))
    if not len(rows) or not len(columns):
        return picture
    picture = picture[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
    height, width = picture.shape[:2]
    middle = np.array([width, height]) / 2
    radii = rng.uniform(0.76, 1.04) * np.exp(rng.uniform(-0.06, 0.06, 2)) * middle
    field = cv2.ellipse(np.zeros((height, width), np.uint8), _at(middle), _at(radii), 0, 0, 360, 255, -1)
    if rng.random() < NOTCHED:
        angle = rng.uniform(0, 2 * np.pi)
        notch = middle + radii * (np.cos(angle), np.sin(angle))
        cv2.circle(field, _at(notch), int(rng.uniform(0.02, 0.05) * width) + 1, 255, -1)
    half = radii * (1.02 if rng.random() < WHOLE else rng.uniform(0.75, 1.05, 2))
    left, top = np.maximum(middle - half, 0).astype(int)
    right, bottom = np.ceil(middle + half).astype(int)
    return cv2.bitwise_and(picture, picture, mask=field)[top:bottom, left:right]


def relight(picture: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """The light of another camera: the picture's own is evened out, then given a colour, a slope and a vignette.

    Details become stronger or weaker.

    In collections from several sources the light tells the source, as the field does. It is what is left of a picture
    without details (Gonzalez and Woods, homomorphic filtering): here without those under a tenth of the side.
    """
    height, width = picture.shape[:2]
    small = cv2.resize(picture, (LIGHT_PX, LIGHT_PX), interpolation=cv2.INTER_AREA).astype(np.float32)
    seen = (small.max(axis=2) > DARK).astype(np.float32)
    if not seen.any():
        return picture
    spread = cv2.GaussianBlur(seen, (0, 0), LIGHT_PX / 10) + 1e-3
    light = np.log(cv2.GaussianBlur(small * seen[..., None], (0, 0), LIGHT_PX / 10) / spread[..., None] + 1)
    mean = light[seen > 0].mean(axis=0)
    y, x = np.mgrid[-1 : 1 : LIGHT_PX * 1j, -1 : 1 : LIGHT_PX * 1j].astype(np.float32)
    (slope_x, slope_y), rim = rng.uniform(-0.25, 0.25, 2), rng.uniform(-0.5, 0.2)
    change = rng.uniform(0, 1) * (mean - light) + (slope_x * x + slope_y * y + rim * (x * x + y * y - 0.5))[..., None]
    change += rng.uniform(-0.2, 0.2, 3).astype(np.float32)
    # details, the picture over its light, become stronger or weaker: p * exp(change) * (p / light) ^ (power - 1)
    power = np.exp(rng.uniform(-0.4, 0.4))
    gain = np.exp(change - (power - 1) * light).astype(np.float32)
    strength = ((np.arange(256, dtype=np.float32) + 1) ** (power - 1)).astype(np.float32)
    return np.clip(picture * cv2.LUT(picture, strength) * cv2.resize(gain, (width, height)), 0, 255).astype(np.uint8)


def restain(picture: np.ndarray, amount: float, rng: np.random.Generator) -> np.ndarray:
    """Other dyes and another scanner: the optical density of each stain grows or fades (Tellez 2018, section III-B)."""
    gains = 1 + rng.uniform(-amount, amount, 3)
    shifts = rng.uniform(-amount, amount, 3) * DENSITY_SHIFT
    matrix = np.column_stack([(hed_from_rgb * gains @ rgb_from_hed).T, shifts @ rgb_from_hed])
    densities = cv2.transform(cv2.LUT(picture, DENSITY), matrix.astype(np.float32))
    return np.clip(256 * np.exp(-densities) - 1, 0, 255).astype(np.uint8)


def _at(point: np.ndarray) -> tuple[int, int]:
    return round(float(point[0])), round(float(point[1]))


def gamma(picture: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Raise intensities to a random power, as differing display curves do."""
    power = np.exp(rng.uniform(-0.4, 0.4))
    return cv2.LUT(picture, (255 * (np.arange(256) / 255) ** power).round().astype(np.uint8))


def blur(picture: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Gaussian, sigma 0.2 to 1.6 px."""
    return cv2.GaussianBlur(picture, (5, 5), rng.uniform(0.2, 1.6))


def sharpen(picture: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Unsharp mask of up to the whole difference."""
    amount = rng.uniform(0, 1)
    return cv2.addWeighted(picture, 1 + amount, cv2.GaussianBlur(picture, (5, 5), 1.0), -amount, 0)


def noise(picture: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Gaussian sensor noise of up to 4 % of the range, the same in all channels."""
    grain = rng.standard_normal((*picture.shape[:2], 1), dtype=np.float32) * np.float32(rng.uniform(0, 10))
    return np.clip(picture + grain, 0, 255).astype(np.uint8)


def compress(picture: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Store and load as JPEG of quality 40 to 95."""
    _, stored = cv2.imencode(".jpg", picture, (cv2.IMWRITE_JPEG_QUALITY, int(rng.integers(40, 96))))
    return np.asarray(cv2.imdecode(stored, cv2.IMREAD_COLOR))


def _warp(picture: np.ndarray, recipe: Recipe, side_px: int, rng: np.random.Generator) -> np.ndarray:
    """Crop, stretch, rotate and flip at once; what lies outside the picture is black, or mirrored where endless."""
    height, width = picture.shape[:2]
    area = rng.uniform(recipe.smallest_crop, recipe.largest_crop)
    stretch = np.exp(rng.uniform(-1, 1) * np.log(recipe.aspect) / 2)
    crop_w, crop_h = width * np.sqrt(area) * stretch, height * np.sqrt(area) / stretch
    centre_x = width / 2 + rng.uniform(-0.5, 0.5) * abs(width - crop_w)
    centre_y = height / 2 + rng.uniform(-0.5, 0.5) * abs(height - crop_h)
    angle = np.deg2rad(rng.uniform(-1, 1) * recipe.rotation_deg + (90 * rng.integers(4) if recipe.turns else 0))
    flip_x = -1 if rng.random() < recipe.flip_horizontal else 1
    flip_y = -1 if rng.random() < recipe.flip_vertical else 1
    # from the new picture, about its centre, to the old one
    scale = np.diag([flip_x * crop_w / side_px, flip_y * crop_h / side_px])
    rotate = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    matrix = rotate @ scale
    middle = np.array([centre_x, centre_y]) - 0.5 - matrix @ np.full(2, (side_px - 1) / 2)
    flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
    outside = cv2.BORDER_REFLECT_101 if recipe.endless else cv2.BORDER_CONSTANT
    to_old = np.hstack([matrix, middle[:, None]])
    return cv2.warpAffine(picture, to_old, (side_px, side_px), flags=flags, borderMode=outside)


def _colour(picture: np.ndarray, recipe: Recipe, rng: np.random.Generator) -> np.ndarray:
    """Brightness, contrast about the middle, saturation about grey and a turn of hue, as one matrix."""
    gain = 1 + rng.uniform(-1, 1) * recipe.brightness
    contrast = gain * (1 + rng.uniform(-1, 1) * recipe.contrast)
    matrix = np.eye(3, dtype=np.float32)
    if recipe.saturation or recipe.hue_deg:
        matrix = _rotation_about_grey(np.deg2rad(rng.uniform(-1, 1) * recipe.hue_deg))
        matrix = GREY + (1 + rng.uniform(-1, 1) * recipe.saturation) * (matrix - GREY)
    shift = (gain - contrast) * MIDDLE
    return cv2.transform(picture, np.hstack([contrast * matrix, shift]).astype(np.float32))


def _rotation_about_grey(angle: float) -> np.ndarray:
    """Rodrigues' rotation of RGB about (1, 1, 1), which leaves greys alone."""
    axis = 1 / np.sqrt(3)
    cross = np.array([[0, -axis, axis], [axis, 0, -axis], [-axis, axis, 0]])
    return np.cos(angle) * np.eye(3) + np.sin(angle) * cross + (1 - np.cos(angle)) * GREY
