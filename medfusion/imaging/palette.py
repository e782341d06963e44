"""PALETTE COLOR: indices to colours through the three tables of the file (DICOM PS3.3 C.7.6.3.1.5 and C.7.9)."""

from __future__ import annotations

import numpy as np
from pydicom import Dataset
from pydicom.pixels.processing import apply_color_lut

CHANNELS = ("Red", "Green", "Blue")


def apply_palette(indices: np.ndarray, dataset: Dataset) -> np.ndarray:
    """(F, H, W) indices to (F, H, W, 3) uint8. Indices outside the table take its first or last colour."""
    entries, first, _ = (int(v) for v in dataset.RedPaletteColorLookupTableDescriptor)
    if "RedPaletteColorLookupTableData" in dataset:
        little = dataset.file_meta.TransferSyntaxUID.is_little_endian
        columns = [
            to_bytes(dataset[f"{c}PaletteColorLookupTableData"].value, entries or 2**16, little) for c in CHANNELS
        ]
        table = np.stack(columns, axis=1)
    else:  # segmented: pydicom expands the segments
        expanded = apply_color_lut(np.arange(first, first + (entries or 2**16)), dataset)[:, :3]
        table = expanded if expanded.max() <= 255 else (expanded >> 8)
    index = np.clip(indices.astype(np.int64) - first, 0, len(table) - 1)
    return table.astype(np.uint8)[index]


def to_bytes(raw: bytes, entries: int, little: bool) -> np.ndarray:
    """One table of `entries` colours to uint8; some files keep 8-bit colours in 16-bit words."""
    if len(raw) < 2 * entries:
        return np.frombuffer(raw, np.uint8)[:entries]
    words = np.frombuffer(raw, "<u2" if little else ">u2")[:entries]
    return (words if words.max() <= 255 else words >> 8).astype(np.uint8)
