"""What a DICOM header says about a picture. Values that are missing or broken read as absent, never as an error."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from pydicom import Dataset, Sequence
from pydicom.multival import MultiValue

from medfusion.imaging.geometry import direction
from medfusion.types import Identity, VoiLut, Window

AT_DETECTOR = "Distances are measured at the detector: in the body they are smaller by the magnification"
OFTEN_BURNED_IN = ("US", "XC", "OT", "ES", "SC", "IVUS")  # modalities whose devices write into the picture
FUNCTIONS = {"LINEAR": "LINEAR", "LINEAR_EXACT": "LINEAR_EXACT", "SIGMOID": "SIGMOID"}


def text(dataset: Dataset, keyword: str) -> str | None:
    """One value as text, None when absent or empty."""
    values = strings(dataset, keyword)
    return values[0] if values and values[0] else None


def strings(dataset: Dataset, keyword: str) -> list[str]:
    value = value_of(dataset, keyword)
    if value is None or value == "":
        return []
    many = value if isinstance(value, (list, tuple, MultiValue)) else [value]
    return [str(item).strip() for item in many]


def value_of(dataset: Dataset, keyword: str) -> Any:
    """A value, or None when it is absent or cannot be decoded; pydicom decodes on access and fails in many ways."""
    try:
        return dataset.get(keyword)
    except Exception:
        return None


def numbers(dataset: Dataset, keyword: str) -> list[float]:
    """All values as finite numbers; empty when any of them is not one."""
    try:
        values = [float(value) for value in strings(dataset, keyword)]
    except ValueError:
        return []
    return values if all(math.isfinite(value) for value in values) else []


def number(dataset: Dataset, keyword: str) -> float | None:
    values = numbers(dataset, keyword)
    return values[0] if values else None


def sequence(dataset: Dataset, keyword: str) -> list[Dataset]:
    value = value_of(dataset, keyword)
    return list(value) if isinstance(value, Sequence) else []


def places(dataset: Dataset, group: str, frame: int = 0) -> Iterator[Dataset]:
    """Where attributes of a frame may stand: its own functional group, the shared one, then the data set itself."""
    per_frame = sequence(dataset, "PerFrameFunctionalGroupsSequence")
    if frame < len(per_frame):
        yield from sequence(per_frame[frame], group)
    for shared in sequence(dataset, "SharedFunctionalGroupsSequence"):
        yield from sequence(shared, group)
    yield dataset


def windows(dataset: Dataset) -> tuple[Window, ...]:
    """The windows of the first frame, in the file's order; those without a width are left out."""
    for place in places(dataset, "FrameVOILUTSequence"):
        centers, widths = numbers(place, "WindowCenter"), numbers(place, "WindowWidth")
        names = strings(place, "WindowCenterWidthExplanation")
        function = FUNCTIONS.get(text(place, "VOILUTFunction") or "LINEAR", "LINEAR")
        found = tuple(
            Window(center, width, names[i] if i < len(names) else "", function)  # type: ignore[arg-type]
            for i, (center, width) in enumerate(zip(centers, widths, strict=False))
            if width > 0
        )
        if found:
            return found
    return ()


def read_lut(item: Dataset, signed: bool, little: bool) -> VoiLut | None:
    """One item of a LUT sequence (PS3.3 C.11.1.1); None when it is broken."""
    descriptor, data = numbers(item, "LUTDescriptor"), value_of(item, "LUTData")
    if len(descriptor) != 3 or not data:
        return None
    entries, first, bits = (int(value) for value in descriptor)
    entries = entries or 2**16
    if isinstance(data, bytes):
        packed = len(data) < 2 * entries  # 8-bit entries, two to a word
        table = np.frombuffer(data, np.uint8 if packed else "<u2" if little else ">u2").astype(np.uint16)
    else:
        table = np.asarray(data, dtype=np.int64).astype(np.uint16).reshape(-1)
    if signed and first > 0x7FFF:
        first -= 0x10000  # written as unsigned although the values are signed
    return (
        VoiLut(first, table[:entries], bits, text(item, "LUTExplanation") or "")
        if 1 <= bits <= 16 and table.size
        else None
    )


def first_lut(dataset: Dataset, keyword: str, signed: bool) -> VoiLut | None:
    little = dataset.file_meta.TransferSyntaxUID.is_little_endian
    items = sequence(dataset, keyword)
    return read_lut(items[0], signed, little) if items else None


def modality_lut(dataset: Dataset) -> VoiLut | None:
    return first_lut(dataset, "ModalityLUTSequence", signed=number(dataset, "PixelRepresentation") == 1)


def voi_lut(dataset: Dataset) -> VoiLut | None:
    if modality_lut(dataset) is not None:
        return first_lut(dataset, "VOILUTSequence", signed=False)
    negative = number(dataset, "PixelRepresentation") == 1 or rescale(dataset)[1] < 0
    return first_lut(dataset, "VOILUTSequence", signed=negative)


def rescale(dataset: Dataset, frame: int = 0) -> tuple[float, float]:
    """Slope and intercept of a frame; (1, 0) when absent. The dose of an RT Dose comes through its own scaling."""
    for place in places(dataset, "PixelValueTransformationSequence", frame):
        slope, intercept = number(place, "RescaleSlope"), number(place, "RescaleIntercept")
        if slope and intercept is not None:
            return slope, intercept
    return number(dataset, "DoseGridScaling") or 1.0, 0.0


def padding(dataset: Dataset) -> tuple[float, float] | None:
    """Lowest and highest stored value that stand for "no image here" (PS3.3 C.7.5.1.1.2)."""
    value = number(dataset, "PixelPaddingValue")
    if value is None:
        return None
    limit = number(dataset, "PixelPaddingRangeLimit")
    return (min(value, limit), max(value, limit)) if limit is not None else (value, value)


def laterality(dataset: Dataset) -> str | None:
    """ "L" or "R", of the image before that of the series."""
    for place in places(dataset, "FrameAnatomySequence"):
        for keyword in ("FrameLaterality", "ImageLaterality", "Laterality"):
            if text(place, keyword) in ("L", "R"):
                return text(place, keyword)
    return None


def orientation(dataset: Dataset) -> tuple[str, ...] | None:
    """Patient orientation of rows and columns: as stated, else from the direction cosines (PS3.3 C.7.6.2.1.1).

    None, too, where the frames lie in different ways.
    """
    stated = strings(dataset, "PatientOrientation")
    if len(stated) == 2 and all(stated):
        return tuple(stated)
    found = {cosines_of(dataset, frame) for frame in range(described_frames(dataset))}
    lying = {(direction(list(one[:3])), direction(list(one[3:]))) for one in found if one}
    return lying.pop() if len(lying) == 1 and None not in found else None


def cosines_of(dataset: Dataset, frame: int) -> tuple[float, ...] | None:
    for place in places(dataset, "PlaneOrientationSequence", frame):
        cosines = numbers(place, "ImageOrientationPatient")
        if len(cosines) == 6:
            return tuple(cosines)
    return None


def described_frames(dataset: Dataset) -> int:
    """How many frames have attributes of their own; at least one to ask for."""
    return max(1, len(sequence(dataset, "PerFrameFunctionalGroupsSequence")))


@dataclass(frozen=True)
class Spacing:
    """mm: between rows and between columns, None where it is not known. at: where a ruler would show the same."""

    mm: tuple[float, float] | None = None
    at: Literal["body", "detector", "film"] = "body"
    notes: tuple[str, ...] = ()


def spacing(dataset: Dataset) -> Spacing:
    """How far pixels lie apart. What was measured at a detector counts as the body's only if the file calibrates it."""
    found = {measures_of(dataset, frame) for frame in range(described_frames(dataset))}
    if len(found) > 1:
        return Spacing(notes=("Its frames have different pixel sizes: distances are in pixels.",))
    own, imager = found.pop(), positive_pair(numbers(dataset, "ImagerPixelSpacing"))
    if own and own == imager and not text(dataset, "PixelSpacingCalibrationType"):  # PS3.3 10.7.1.3: not calibrated
        own = None
    if own:
        return Spacing(own)
    if imager:
        return Spacing(imager, "detector", (AT_DETECTOR + magnified(dataset),))
    if film := positive_pair(numbers(dataset, "NominalScannedPixelSpacing")):
        return Spacing(film, "film", ("Distances are those on the film that was scanned, not those in the body.",))
    return of_ultrasound(dataset)


def measures_of(dataset: Dataset, frame: int) -> tuple[float, float] | None:
    for place in places(dataset, "PixelMeasuresSequence", frame):
        if pair := positive_pair(numbers(place, "PixelSpacing")):
            return pair
    return None


def magnified(dataset: Dataset) -> str:
    factor = number(dataset, "EstimatedRadiographicMagnificationFactor")
    return f" (the file estimates {factor:.3g} times)." if factor and factor > 1 else "."


def of_ultrasound(dataset: Dataset) -> Spacing:
    """What the regions of an ultrasound picture say, where all of them say the same (PS3.3 C.8.5.5)."""
    regions = [
        region
        for region in sequence(dataset, "SequenceOfUltrasoundRegions")
        if (number(region, "PhysicalUnitsXDirection"), number(region, "PhysicalUnitsYDirection")) == (3, 3)
    ]
    deltas = {tuple(abs(number(region, f"PhysicalDelta{axis}") or 0) * 10 for axis in "YX") for region in regions}
    if len(deltas) > 1:
        return Spacing(notes=("Its ultrasound regions have different pixel sizes: distances are in pixels.",))
    pair = positive_pair([value for pair in deltas for value in pair])
    return Spacing(pair, notes=("Distances hold within the ultrasound's own region only.",)) if pair else Spacing()


def positive_pair(values: list[float]) -> tuple[float, float] | None:
    return (values[0], values[1]) if len(values) == 2 and min(values) > 0 else None


def notes(dataset: Dataset) -> tuple[str, ...]:
    """What a reader should know, in sentences."""
    found = []
    if text(dataset, "BurnedInAnnotation") == "YES":
        found.append("The file says that text is burned into the picture; it may identify the patient.")
    elif may_show_text(dataset):
        found.append("Devices of this kind often write into the picture; text there may identify the patient.")
    if text(dataset, "LossyImageCompression") == "01":
        found.append("The picture was compressed with loss; fine detail may be missing.")
    return tuple(found)


def may_show_text(dataset: Dataset) -> bool:
    """Whether the file says that text is burned in, or says nothing although its kind often has some."""
    said = (text(dataset, "BurnedInAnnotation") or "").upper()
    return said == "YES" or (said != "NO" and text(dataset, "Modality") in OFTEN_BURNED_IN)


def identity(dataset: Dataset) -> Identity:
    keywords = ("PatientID", "PatientName", "StudyInstanceUID", "SeriesInstanceUID", "SOPInstanceUID")
    return Identity(*(text(dataset, keyword) or "" for keyword in keywords))
