"""GDCM in a process of its own: it alone decodes JPEG Lossless and 12-bit JPEG, but damaged data can abort it.

The parent sends the picture part of a data set (no identity) and gets an array back. Run as a module, this
is the child.
"""

from __future__ import annotations

import subprocess
import sys
from io import BytesIO
from pathlib import Path

import numpy as np
from pydicom import Dataset, dcmread
from pydicom.dataset import FileMetaDataset
from pydicom.pixels import get_decoder

from medfusion.errors import DamagedFile

ROOT = Path(__file__).resolve().parents[2]
TIMEOUT_S = 60
PIXEL_GROUPS = (0x0028, 0x7FE0)  # how pixels are laid out, and the pixels


def decode_apart(dataset: Dataset) -> tuple[np.ndarray, str]:
    """Stored values as GDCM decodes them, and their photometric interpretation. Raises DamagedFile when it fails."""
    command = [sys.executable, "-m", "medfusion.imaging.gdcm_apart"]
    try:
        done = subprocess.run(command, input=picture_part(dataset), capture_output=True, cwd=ROOT, timeout=TIMEOUT_S)
    except subprocess.TimeoutExpired as error:
        raise DamagedFile("This DICOM file takes too long to decode. Export or copy it again.") from error
    if done.returncode != 0:
        raise DamagedFile("The picture in this DICOM file is damaged and cannot be decoded. Export or copy it again.")
    photometric, _, array = done.stdout.partition(b"\n")
    return np.load(BytesIO(array), allow_pickle=False), photometric.decode("ascii")


def picture_part(dataset: Dataset) -> bytes:
    """A DICOM file with nothing in it but what decoding needs."""
    part = Dataset()
    part.file_meta = FileMetaDataset()
    part.file_meta.TransferSyntaxUID = dataset.file_meta.TransferSyntaxUID
    for group in PIXEL_GROUPS:
        part.update(dataset.group_dataset(group))
    file = BytesIO()
    part.save_as(file)
    return file.getvalue()


def main() -> None:
    from medfusion.imaging.jpeg12 import decode_jpeg_12, is_jpeg_12

    dataset = dcmread(BytesIO(sys.stdin.buffer.read()), force=True)
    if is_jpeg_12(dataset):
        array, photometric = decode_jpeg_12(dataset), str(dataset.PhotometricInterpretation)
    else:
        decoder = get_decoder(dataset.file_meta.TransferSyntaxUID)
        array, facts = decoder.as_array(dataset, decoding_plugin="gdcm", allow_excess_frames=False)  # type: ignore[arg-type]
        photometric = str(facts["photometric_interpretation"])
    sys.stdout.buffer.write(photometric.encode("ascii") + b"\n")
    np.save(sys.stdout.buffer, np.ascontiguousarray(array), allow_pickle=False)


if __name__ == "__main__":
    main()
