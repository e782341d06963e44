"""Decode DICOM pixels and apply the Modality LUT (PS3.3 C.11.1), frame by frame where the file says so."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from pydicom import Dataset
from pydicom.pixels import get_decoder
from pydicom.pixels.decoders.base import Decoder
from pydicom.uid import UID, JPEGTransferSyntaxes

from medfusion.errors import DamagedFile, UnsupportedScan
from medfusion.imaging import dicom_headers as headers
from medfusion.imaging.jpeg12 import decode_jpeg_12, is_jpeg_12
from medfusion.imaging.palette import apply_palette
from medfusion.types import Window

GREY = ("MONOCHROME1", "MONOCHROME2")
DAMAGED = "The picture in this DICOM file is damaged and cannot be decoded. Export or copy it again."
REEXPORT = "Export it again as uncompressed DICOM (Explicit VR Little Endian), PNG or JPEG."


@dataclass(frozen=True, eq=False)
class Pixels:
    """frames as in Scan; padding in modality units; implied_windows for depths under 8 bits."""

    frames: np.ndarray
    inverted: bool = False
    padding: tuple[float, float] | None = None
    implied_windows: tuple[Window, ...] = ()


def decode(dataset: Dataset) -> Pixels:
    """Decode all frames. Raises UnsupportedScan when no decoder knows the coding, by its name."""
    stored, photometric = decode_stored(dataset)
    if photometric == "PALETTE COLOR":
        return Pixels(apply_palette(stored, dataset))
    if photometric in GREY:
        return to_modality(stored, dataset, inverted=photometric == "MONOCHROME1")
    if stored.ndim == 4 and photometric == "RGB":
        return Pixels(to_8_bits(stored, int(dataset.BitsStored)))
    raise UnsupportedScan(f"The colours of this DICOM file are coded as {photometric}, which is not read. {REEXPORT}")


def decode_stored(dataset: Dataset) -> tuple[np.ndarray, str]:
    """Stored values, (F, H, W) or (F, H, W, 3), and the photometric interpretation that they are in now."""
    array, photometric = decode_array(dataset, find_decoder(dataset.file_meta.TransferSyntaxUID))
    shape = (int(dataset.NumberOfFrames), int(dataset.Rows), int(dataset.Columns))
    array = array.reshape(*shape, 3) if dataset.SamplesPerPixel == 3 else array.reshape(shape)
    return array.astype(array.dtype.newbyteorder("="), copy=False), photometric


def decode_array(dataset: Dataset, decoder: Decoder) -> tuple[np.ndarray, str]:
    """Try the plugins that survive damaged data, one by one, then GDCM for JPEG, which may end this process."""
    plugins = [plugin for plugin in decoder.available_plugins if plugin != "gdcm"]
    for plugin in plugins or ([] if decoder.is_encapsulated else [""]):
        try:
            array, facts = decoder.as_array(dataset, decoding_plugin=plugin, allow_excess_frames=False)  # type: ignore[arg-type]
        except RuntimeError:  # pydicom's word for "this plugin failed"
            continue
        return array, str(facts["photometric_interpretation"])
    if plugins and decoder.UID not in JPEGTransferSyntaxes:
        raise DamagedFile(DAMAGED)
    if is_jpeg_12(dataset):
        return decode_jpeg_12(dataset), str(dataset.PhotometricInterpretation)
    try:
        array, facts = decoder.as_array(dataset, decoding_plugin="gdcm", allow_excess_frames=False)  # type: ignore[arg-type]
    except RuntimeError as error:
        raise DamagedFile(DAMAGED) from error
    return array, str(facts["photometric_interpretation"])


def find_decoder(syntax: UID) -> Decoder:
    """Raises UnsupportedScan, with the coding's name, when nothing installed decodes it."""
    try:
        decoder = get_decoder(syntax)
    except NotImplementedError:
        decoder = None
    if decoder is None or not decoder.is_available:
        name = syntax.name if syntax.name != syntax else "a private transfer syntax"
        raise UnsupportedScan(f"The picture in this DICOM file is coded as {name}, which is not read here. {REEXPORT}")
    return decoder


def to_8_bits(colours: np.ndarray, bits_stored: int) -> np.ndarray:
    """Colour samples of any depth to uint8, by their most significant bits."""
    shift = bits_stored - 8
    return (colours >> shift if shift > 0 else colours << -shift).astype(np.uint8)


def to_modality(stored: np.ndarray, dataset: Dataset, inverted: bool) -> Pixels:
    """Grey values in modality units: through the Modality LUT where there is one, else rescaled."""
    lut = headers.modality_lut(dataset)
    padding = headers.padding(dataset)
    if lut is not None:
        index = np.clip(stored.astype(np.int64) - lut.first_value, 0, len(lut.table) - 1)
        return Pixels(lut.table[index], inverted)
    rescales = [headers.rescale(dataset, frame) for frame in range(len(stored))]
    slope, intercept = rescales[0]
    if padding is not None:
        low, high = sorted(value * slope + intercept for value in padding)
        padding = (low, high)
    bits = int(dataset.get("BitsStored", 32))
    implied = () if bits >= 8 else (Window((2**bits - 1) / 2, 2**bits - 1, "Full range", "LINEAR_EXACT"),)
    return Pixels(rescaled(stored, rescales, bits), inverted, padding, implied)


def rescaled(stored: np.ndarray, rescales: list[tuple[float, float]], bits: int) -> np.ndarray:
    """stored · slope + intercept for each frame, in the smallest type for all values that the depth allows."""
    if stored.dtype.kind == "f" or not all(float(x).is_integer() for pair in rescales for x in pair):
        pairs = np.asarray(rescales, dtype=np.float64)[:, :, None, None]
        return (stored * pairs[:, 0] + pairs[:, 1]).astype(np.float32)
    low, high = (-(2 ** (bits - 1)), 2 ** (bits - 1) - 1) if stored.dtype.kind == "i" else (0, 2**bits - 1)
    ends = [int(slope) * end + int(intercept) for slope, intercept in set(rescales) for end in (low, high)]
    dtype = smallest_dtype(min(ends), max(ends))
    if dtype.itemsize > 2:  # what the depth allows is rarely used: CT in Hounsfield units fits 16 bits
        low, high = value_range(stored, rescales)
        dtype = smallest_dtype(low, max(high, 0x100))  # uint8 stays reserved for 8-bit files
    return rescale_integers(stored, rescales, dtype)


def value_range(stored: np.ndarray, rescales: list[tuple[float, float]]) -> tuple[int, int]:
    ends = [int(s) * int(end) + int(i) for s, i in set(rescales) for end in (stored.min(), stored.max())]
    return min(ends), max(ends)


def rescale_integers(stored: np.ndarray, rescales: list[tuple[float, float]], dtype: np.dtype) -> np.ndarray:
    if set(rescales) == {(1.0, 0.0)}:
        return stored.astype(dtype, copy=False)
    out = np.empty(stored.shape, dtype)
    for frame, (slope, intercept) in enumerate(rescales):
        wide = stored[frame].astype(np.float64 if dtype == np.float32 else np.int64)
        out[frame] = wide * int(slope) + int(intercept)
    return out


def smallest_dtype(low: int, high: int) -> np.dtype:
    """uint8, uint16, int16 or int32, whichever holds low..high first; float32 beyond."""
    for dtype in (np.uint8, np.uint16, np.int16, np.int32):
        if np.iinfo(dtype).min <= low and high <= np.iinfo(dtype).max:
            return np.dtype(dtype)
    return np.dtype(np.float32)
