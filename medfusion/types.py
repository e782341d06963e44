"""Frozen dataclasses that cross layers. They hold data and say what it means; they do no work.

Axis letters: F frames, H/W pixels, K classes. Arrays are read-only by convention.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

import numpy as np

Task = Literal["binary", "multiclass", "multilabel"]


@dataclass(frozen=True)
class Limits:
    """What an untrusted file may cost. Checked before anything is decoded."""

    max_bytes: int = 512 * 2**20
    max_pixels: int = 64_000_000  # one frame; a 64-megapixel frame takes 0.2 GB as RGB
    max_total_pixels: int = 400_000_000  # all frames together
    min_side_px: int = 2  # a single row or dot is no picture; small ones are shown, and the answer warns
    max_memory_bytes: int = 6 * 2**30  # while it is decoded: several copies of all its pixels
    max_seconds: float = 60.0  # of computing


DEFAULT_LIMITS = Limits()


@dataclass(frozen=True)
class Window:
    """A linear or sigmoid grey-scale window in the units of the modality (DICOM PS3.3 C.11.2.1.2)."""

    center: float
    width: float
    name: str = ""
    function: Literal["LINEAR", "LINEAR_EXACT", "SIGMOID"] = "LINEAR"


@dataclass(frozen=True, eq=False)
class VoiLut:
    """A table from modality values to display values (DICOM PS3.3 C.11.2.1.1)."""

    first_value: int
    table: np.ndarray  # (entries,) uint16
    bits: int
    name: str = ""


@dataclass(frozen=True)
class Identity:
    """Who the scan belongs to. Filled only when the caller asks for it; never logged."""

    patient_id: str = ""
    patient_name: str = ""
    study_uid: str = ""
    series_uid: str = ""
    sop_uid: str = ""


@dataclass(frozen=True)
class Stripped:
    """A file without identity. patient, study, series and sop are pseudonyms, "" where the file names none."""

    content: bytes
    patient: str = ""
    study: str = ""
    series: str = ""
    instance: int = 0
    sop: str = ""  # of the object itself
    burned_in: bool = False
    day: int | None = None  # of the study, on a calendar of the patient's own: only differences mean anything


@dataclass(frozen=True, eq=False)
class Scan:
    """One decoded file: stored values after the Modality LUT, before any windowing.

    frames: (F, H, W) grey in modality units, or (F, H, W, 3) uint8 RGB. Grey keeps the smallest dtype that
    holds the values (uint8, uint16, int16, int32 or float32).
    """

    frames: np.ndarray
    name: str  # as the user named it: shown on the page, never logged
    sha256: str  # of the file's bytes
    file_format: str  # "DICOM", "PNG", "JPEG", "TIFF"
    windows: tuple[Window, ...] = ()  # from the file, in its order
    voi_lut: VoiLut | None = None  # goes before the windows when present
    inverted: bool = False  # MONOCHROME1: the lowest value is shown white
    modality: str | None = None  # DICOM (0008,0060), such as "DX", "CT", "US"
    body_part: str | None = None
    laterality: str | None = None  # "L", "R" or None
    orientation: tuple[str, ...] | None = None  # patient orientation of the row and column directions, ("L", "F")
    spacing_mm: tuple[float, float] | None = None  # (between rows, between columns)
    spacing_at: Literal["body", "detector", "film"] = "body"  # where the millimetres are those of a ruler
    transfer_syntax: str | None = None  # by name
    notes: tuple[str, ...] = ()  # what a reader should know, in sentences
    identity: Identity | None = None
    padding: tuple[float, float] | None = None  # lowest and highest value that mean "no image here", in modality units

    @property
    def is_grey(self) -> bool:
        return self.frames.ndim == 3

    @property
    def frame_count(self) -> int:
        return self.frames.shape[0]

    @property
    def height_px(self) -> int:
        return self.frames.shape[1]

    @property
    def width_px(self) -> int:
        return self.frames.shape[2]


@dataclass(frozen=True)
class InputSpec:
    """What the network expects. Part of the card, so that preprocessing travels with the weights."""

    height_px: int = 224
    width_px: int = 224
    mean: float = 127 / 255  # of intensities in 0..1; the EfficientNet-Lite convention (x - 127) / 128
    std: float = 128 / 255


@dataclass(frozen=True)
class OperatingPoint:
    """How probabilities become an answer.

    thresholds: K values in 0..1. binary: the second class is answered when its probability reaches thresholds[1].
    multiclass: the class with the largest probability / threshold is answered. multilabel: each class on its own.
    """

    thresholds: tuple[float, ...]
    rule: str  # how it was chosen, in one sentence, on which data
    sensitivity: float = 0.0  # that it was chosen to reach, 0..1; 0: none


@dataclass(frozen=True)
class ModelCard:
    """What a model is, how it was made and how well it does. Mirrors models/<id>/card.json."""

    id: str
    title: str
    version: str
    size: str  # "tiny" or "small"
    task: Task
    classes: tuple[str, ...]
    modality: str  # in words: "Chest X-ray (children)"
    dicom_modalities: tuple[str, ...]  # DICOM codes that fit: ("CR", "DX")
    colour: bool  # trained on colour pictures
    input: InputSpec
    temperature: float  # logits are divided by it (Guo et al. 2017)
    operating_point: OperatingPoint
    weights_sha256: str
    intended_use: str = ""
    limits: tuple[str, ...] = ()
    data: Mapping[str, object] = field(default_factory=dict)  # source, licence, citation, counts per split
    training: Mapping[str, object] = field(default_factory=dict)  # command, seed, settings, versions, time
    metrics: Mapping[str, object] = field(default_factory=dict)  # split → what `medfusion evaluate` reports
    role: Literal["diagnosis", "foundation"] = "diagnosis"  # a foundation is a start for training and answers nothing
    set_thresholds: tuple[float, ...] = ()  # K; from these probabilities on a class cannot be ruled out (conformal)
    license: str = ""
    class_offsets: tuple[float, ...] = ()  # K; what calibration has added to class logits, in the weights already


@dataclass(frozen=True)
class Route:
    """Where a scan belongs. model_id is None when it is refused; reason says why, in a sentence for the reader."""

    model_id: str | None
    reason: str
    distances: Mapping[str, float]  # by model id; at most 1 fits


@dataclass(frozen=True)
class Prediction:
    """A calibrated answer to one frame of one scan."""

    model_id: str
    model_version: str
    scan_sha256: str
    frame: int
    classes: tuple[str, ...]
    probabilities: tuple[float, ...]  # K, calibrated; they sum to 1 unless multilabel
    answers: tuple[str, ...]  # at the operating point; one name unless multilabel
    operating_point: OperatingPoint
    warnings: tuple[str, ...] = ()  # input checks, in sentences
    elapsed_s: float = 0.0
    plausible: tuple[str, ...] | None = None  # classes that 90 % of cases allow; one is sure. None: not calibrated
    override: str | None = None  # the one of the warnings that says why the router would not choose this model


@dataclass(frozen=True, eq=False)
class Explanation:
    """Where the evidence for one class lies, according to one method: the heatmap contract.

    heatmap: (H, W) float32 in 0..1 on the grid of the original frame, 1 = most supportive of the target. A map
             without positive evidence is all zero; it is never stretched.
    signed:  (H, W) float32 in -1..1 on the same grid, divided by the largest absolute value; negative = speaks
             against the target. All zero when the raw map is.
    raw:     (h, w) float32 in the method's own units on the method's own grid, signed.
    evidence: raw without what chance explains; heatmap and signed are made of it.
    """

    method: str
    target_index: int
    target_name: str
    heatmap: np.ndarray
    signed: np.ndarray
    raw: np.ndarray
    evidence: np.ndarray
    model_id: str
    model_version: str
    scan_sha256: str
    frame: int
    seed: int | None  # None where the method draws no random numbers
    settings: Mapping[str, object]
    elapsed_s: float
    fit: float | None = None  # LIME: R² of the local surrogate model, 0..1
    samples: int | None = None  # LIME: random draws that were answered
    knows_class: bool = True  # False: the same map for every class

    @property
    def has_positive_evidence(self) -> bool:
        return bool(self.heatmap.max() > 0)


@dataclass(frozen=True, eq=False)
class EvaluationReport:
    """An evaluation for the reader to keep. archive: a zip of report.html, figures and tables."""

    figures: Mapping[str, object]  # as `medfusion evaluate` reports
    archive: bytes


@dataclass(frozen=True)
class Sample:
    """A picture to try the program with, from an installed package or generated by this project."""

    id: str
    title: str
    origin: str  # where it comes from, and whether it is synthetic
    model_id: str  # the model that suits it, or ""
