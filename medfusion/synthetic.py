"""Draw a frontal chest radiograph from nothing: a sample that may be shown, shared and shipped freely.

Attenuations along the beam are added up (Beer–Lambert, in the log domain) from simple solids: trunk, lungs, heart,
diaphragm, spine, ribs, clavicles, scapulae and vessels. Anatomy is schematic; no patient's picture went into it.

Coordinates: x from -0.9 (left edge of the picture, the patient's right) to 0.9; y from 0 (top) to 1 (bottom).
"""

from __future__ import annotations

from functools import cache
from io import BytesIO

import numpy as np
from PIL import Image, ImageDraw, ImageFont
from pydicom import Dataset
from pydicom.dataset import FileMetaDataset
from pydicom.uid import DigitalXRayImageStorageForPresentation, ExplicitVRLittleEndian, generate_uid
from scipy.ndimage import gaussian_filter

SIDE_PX = 1024
TOP = 4095  # 12 bits
MARK = "SYNTHETIC - NOT A PATIENT"


@cache
def chest_xray_dicom() -> bytes:
    """The radiograph as a DICOM file (DX, 12 bits, MONOCHROME2); the same bytes at every call."""
    pixels = chest_xray()
    dataset = Dataset()
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    dataset.SOPClassUID = DigitalXRayImageStorageForPresentation
    dataset.SOPInstanceUID = generate_uid(entropy_srcs=["medfusion synthetic chest"])
    dataset.Modality = "DX"
    dataset.PatientName = "Synthetic^Chest"
    dataset.PatientID = "SYNTHETIC"
    dataset.BodyPartExamined = "CHEST"
    dataset.ViewPosition = "PA"
    dataset.PatientOrientation = ["L", "F"]
    dataset.ImageComments = "Synthetic: drawn by a program, of no patient."
    dataset.BurnedInAnnotation = "NO"
    dataset.ImagerPixelSpacing = [0.4, 0.4]
    dataset.Rows, dataset.Columns = pixels.shape
    dataset.SamplesPerPixel = 1
    dataset.PhotometricInterpretation = "MONOCHROME2"
    dataset.BitsAllocated, dataset.BitsStored, dataset.HighBit = 16, 12, 11
    dataset.PixelRepresentation = 0
    dataset.WindowCenter, dataset.WindowWidth = 2048, 4096
    dataset.PixelData = pixels.astype("<u2").tobytes()
    file = BytesIO()
    dataset.save_as(file, enforce_file_format=True)
    return file.getvalue()


def chest_xray(side_px: int = SIDE_PX, seed: int = 7) -> np.ndarray:
    """(H, W) uint16 in 0..4095, bright where the body attenuates; marked as synthetic in its upper left corner."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[0:side_px, 0:side_px] / (side_px - 1)
    x = 0.9 * (2 * x - 1)  # the shoulders leave the picture, as they do on film
    trunk = trunk_thickness(x, y)
    air = lung_air(x, y) * (1 - 0.8 * heart(x, y))
    density = 1.0 * trunk - 0.86 * trunk * air
    density += air * (0.11 * vessels(side_px, rng) + 0.02 * texture(side_px, rng))
    density += 0.06 * heart(x, y) + spine(x, y)
    density += 0.13 * posterior_ribs(x, y) + 0.055 * anterior_ribs(x, y)
    density += 0.15 * clavicles(x, y) + 0.09 * scapulae(x, y)
    density -= 0.16 * trachea(x, y)
    density = gaussian_filter(np.clip(density, 0, None), side_px / 850)
    picture = 1 - np.exp(-1.75 * density)  # the film's shoulder
    picture += rng.normal(0, 0.011, picture.shape) * (0.4 + picture)
    scaled = np.clip((picture - 0.04) / 0.84, 0, 1) ** 1.15 * (0.97 * TOP)
    return np.maximum(scaled, TOP * mark(side_px)).astype(np.uint16)


def ramp(value: np.ndarray, softness: float) -> np.ndarray:
    """0 to 1 across zero, over about four times the softness."""
    return 1 / (1 + np.exp(np.clip(-value / softness, -60, 60)))


def tube(distance: np.ndarray, radius: float) -> np.ndarray:
    """Thickness of a hollow bone across its axis: round, with a brighter rim of compact bone."""
    inside = np.clip(1 - (distance / radius) ** 2, 0, None)
    return np.sqrt(inside) * 0.55 + 0.75 * np.exp(-(((np.abs(distance) - 0.8 * radius) / (0.28 * radius)) ** 2))


def trunk_thickness(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Soft tissue from front to back: neck, sloping shoulders, trunk, and more of it below the diaphragm."""
    shoulder = ramp(y - 0.075 - 0.075 * np.abs(x), 0.016)
    half_width = 0.24 + (1.02 - 0.13 * ramp(y - 0.48, 0.07) - 0.24) * shoulder
    profile = np.clip(1 - (np.abs(x) / half_width) ** 3.2, 0, None) ** 0.55
    abdomen = ramp(y - 0.80, 0.05)
    axilla = 0.12 * np.exp(-(((np.abs(x) - 0.83) / 0.10) ** 2)) * ramp(y - 0.18, 0.04)
    return profile * (0.80 + 0.35 * abdomen + 0.16 * np.exp(-((x / 0.22) ** 2))) + axilla * (profile > 0)


def dome(x: np.ndarray) -> np.ndarray:
    """Height of the diaphragm; the patient's right side, over the liver, stands higher."""
    right = 0.715 + 0.62 * np.clip(np.abs(x + 0.36), 0, None) ** 2.1
    left = 0.745 + 0.62 * np.clip(np.abs(x - 0.38), 0, None) ** 2.1
    return np.where(x < 0, right, left)


def chest_wall(y: np.ndarray) -> np.ndarray:
    """Distance of the inner chest wall from the midline."""
    return 0.735 - 1.3 * np.clip(0.48 - y, 0, None) ** 1.75 + 0.03 * ramp(y - 0.6, 0.05)


def lung_air(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Share of the beam's way through the trunk that is air, 0..1."""
    a = np.abs(x)
    lateral = chest_wall(y)
    medial = 0.115 + 0.05 * np.exp(-(((y - 0.46) / 0.10) ** 2))
    field = ramp(lateral - a, 0.010) * ramp(a - medial, 0.009) * ramp(y - 0.125 - 0.10 * np.abs(a - 0.33), 0.008)
    depth = np.clip(1 - ((a - 0.43) / 0.40) ** 2, 0.25, 1) ** 0.4
    return field * ramp(dome(x) - y, 0.006) * depth * (0.86 + 0.14 * ramp(y - 0.28, 0.08))


def heart(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Heart, aortic knob and great vessels, 0..1: what they add to the trunk where the lung was."""
    turn = np.deg2rad(28)
    u = (x - 0.13) * np.cos(turn) + (y - 0.625) * 2 * np.sin(turn)
    v = -(x - 0.13) * np.sin(turn) + (y - 0.625) * 2 * np.cos(turn)
    ventricles = ramp(1 - (u / 0.36) ** 2 - (v / 0.29) ** 2, 0.09)
    atrium = ramp(1 - ((x + 0.08) / 0.13) ** 2 - ((y - 0.60) / 0.12) ** 2, 0.10)
    knob = ramp(1 - ((x - 0.10) / 0.085) ** 2 - ((y - 0.335) / 0.05) ** 2, 0.12)
    hila = 0.45 * np.exp(-(((np.abs(x) - 0.19) / 0.05) ** 2) - ((y - 0.455) / 0.055) ** 2)
    return np.clip(ventricles + atrium + 0.8 * knob + hila, 0, 1)


def spine(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Vertebral bodies and discs, seen faintly through the mediastinum."""
    body = ramp(0.073 + 0.012 * y - np.abs(x), 0.007)
    bone = 0.11 + 0.05 * np.tanh(3.5 * np.sin(2 * np.pi * (y / 0.062)) + 1.4)
    process = 0.05 * np.exp(-((x / 0.014) ** 2)) * (np.sin(2 * np.pi * (y / 0.062) + 1) > 0.2)
    return body * (bone + process)


def trachea(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """The windpipe's column of air and the two main bronchi."""
    pipe = ramp(0.038 - np.abs(x + 0.008), 0.006) * ramp(0.375 - y, 0.012)
    branch = np.abs(x + 0.008) - 0.9 * (y - 0.37)
    bronchi = np.exp(-((branch / 0.032) ** 2)) * ramp(y - 0.365, 0.008) * ramp(0.445 - y, 0.012)
    return pipe + 0.6 * bronchi


def posterior_ribs(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Ten ribs a side, from the spine outwards and down."""
    a = np.abs(x)
    total = np.zeros_like(x)
    for i in range(10):
        start, reach = 0.145 + 0.0625 * i, min(0.50 + 0.075 * i, 0.80)
        t = np.clip((a - 0.07) / (reach - 0.07), 0, 1.15)
        axis = start - 0.055 * np.sin(np.pi * np.clip(t * 0.8, 0, 1)) * (1 - 0.04 * i) + (0.085 + 0.012 * i) * t**3.2
        slope = np.gradient(axis, axis=1) * (axis.shape[0] / 2)
        distance = (y - axis) / np.sqrt(1 + slope**2)
        ends = ramp(chest_wall(axis) + 0.025 - a, 0.007) * ramp(a - 0.075, 0.006)
        total += tube(distance, 0.0155) * ends
    return total * ramp(0.90 - y, 0.03)


def anterior_ribs(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """The fainter front parts, from the chest wall inwards and down, ending where cartilage begins."""
    a = np.abs(x)
    total = np.zeros_like(x)
    for i in range(6):
        reach = chest_wall(np.array(0.235 + 0.083 * i)) + 0.02
        t = np.clip((reach - a) / 0.45, 0, 1)
        axis = 0.235 + 0.083 * i + 0.165 * t**0.8
        distance = (y - axis) / 1.25
        total += tube(distance, 0.018) * ramp(chest_wall(axis) + 0.025 - a, 0.007) * ramp(a - (0.24 + 0.02 * i), 0.02)
    return total


def clavicles(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    a = np.abs(x)
    axis = 0.215 - 0.075 * np.clip(a - 0.07, 0, None) + 0.018 * np.sin(2 * np.pi * (a - 0.07) / 0.75)
    radius_end = 0.019 + 0.008 * np.exp(-(((a - 0.08) / 0.06) ** 2))
    return tube((y - axis) / radius_end * 0.019, 0.019) * ramp(0.80 - a, 0.012) * ramp(a - 0.065, 0.006)


def scapulae(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    a = np.abs(x)
    inner = 0.70 + 0.02 * np.sin(6 * y)
    blade = ramp(a - inner, 0.008) * ramp(0.88 - 0.35 * np.clip(y - 0.2, 0, None) - a, 0.01)
    return blade * ramp(y - 0.17, 0.012) * ramp(0.46 - y, 0.012)


def vessels(side_px: int, rng: np.random.Generator) -> np.ndarray:
    """Branching vessels that thin out from the hila, about 0..1."""
    canvas = Image.new("F", (side_px, side_px))
    draw = ImageDraw.Draw(canvas)
    for side in (-1, 1):
        for angle in np.linspace(-1.45, 1.5, 15):
            branch(draw, side_px, rng, side * 0.19, 0.45, side, angle + rng.normal(0, 0.1), 0.0085)
    return gaussian_filter(np.asarray(canvas), side_px / 700)


def branch(
    draw: ImageDraw.ImageDraw,
    side_px: int,
    rng: np.random.Generator,
    x: float,
    y: float,
    side: int,
    angle: float,
    width: float,
) -> None:
    """Draw one vessel and, at random, those that leave it. angle 0 points to the chest wall, positive ones down."""
    while width > 0.0012:
        step = 0.018
        angle += rng.normal(0, 0.10)
        x2, y2 = x + side * step * 1.6 * np.cos(angle), y + step * np.sin(angle)
        points = [(p + 1) / 2 * side_px if i % 2 == 0 else p * side_px for i, p in enumerate((x, y, x2, y2))]
        draw.line(points, fill=min(1.0, width / 0.007), width=max(1, round(width * side_px)))
        x, y = x2, y2
        if rng.random() < 0.22:
            branch(draw, side_px, rng, x, y, side, angle + rng.choice((-1, 1)) * rng.uniform(0.3, 0.8), width * 0.6)
        width *= 0.93


def texture(side_px: int, rng: np.random.Generator) -> np.ndarray:
    """Fine mottle of the lung's tissue, with unit spread."""
    fine = gaussian_filter(rng.normal(size=(side_px, side_px)), side_px / 340)
    coarse = gaussian_filter(rng.normal(size=(side_px, side_px)), side_px / 90)
    return fine / fine.std() + coarse / coarse.std()


def mark(side_px: int) -> np.ndarray:
    """The burned-in words, 0..1."""
    canvas = Image.new("L", (side_px, side_px))
    draw = ImageDraw.Draw(canvas)
    draw.text((side_px * 0.02, side_px * 0.02), MARK, fill=255, font=ImageFont.load_default(side_px * 0.026))
    draw.text((side_px * 0.93, side_px * 0.04), "L", fill=255, font=ImageFont.load_default(side_px * 0.045))
    return np.asarray(canvas) / 255
