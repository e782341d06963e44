"""Turn uploaded bytes into a Scan, by content and never by suffix."""

from __future__ import annotations

import logging
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from io import BytesIO

from pydicom import dcmread

from medfusion.errors import DamagedFile, ScanError, ScanTooLarge
from medfusion.imaging.dicom import read_dicom
from medfusion.imaging.formats import recognise
from medfusion.imaging.limits import check_bytes
from medfusion.imaging.pictures import read_picture
from medfusion.types import DEFAULT_LIMITS, Limits, Scan

_warning_filters = threading.RLock()  # they belong to the whole process, and pages run in threads


def read_scan(data: bytes, name: str = "", limits: Limits = DEFAULT_LIMITS, with_identity: bool = False) -> Scan:
    """Decode one file: DICOM, PNG, JPEG or TIFF.

    name is kept for the page and never logged. with_identity fills Scan.identity; without it the patient's identity
    never leaves this function. Raises NotAnImage, DamagedFile, UnsupportedScan or ScanTooLarge, each with a sentence
    that holds neither name nor identity.
    """
    check_bytes(len(data), limits)
    file_format = recognise(data)
    try:
        with quiet_decoders():
            if file_format == "DICOM":
                return read_dicom(data, name, limits, with_identity)
            return read_picture(data, name, file_format, limits)
    except ScanError:
        raise
    except MemoryError as error:
        raise ScanTooLarge(
            "There is not enough memory to decode this file. Export it at a lower resolution."
        ) from error
    except Exception as error:  # decoders of untrusted data fail in every way there is
        raise DamagedFile(
            f"This {file_format} file is damaged or incomplete and cannot be decoded. Export or copy it again."
        ) from error


def patient_number(head: bytes) -> str:
    """The PatientID in the first bytes of a file; "" where there is none, or where it is no DICOM file."""
    try:
        if recognise(head) != "DICOM":
            return ""
        with quiet_decoders():
            dataset = dcmread(BytesIO(head), force=True, stop_before_pixels=True, specific_tags=["PatientID"])
        return str(dataset.get("PatientID") or "").strip()
    except Exception:  # cut off, deflated or damaged: nothing is told
        return ""


@contextmanager
def quiet_decoders() -> Iterator[None]:
    """Keep the decoders' warnings off the console: pydicom quotes values from the header, names among them."""
    for library in ("pydicom", "pylibjpeg", "openjpeg", "PIL", "tifffile"):
        logging.getLogger(library).setLevel(logging.CRITICAL + 1)
    with _warning_filters, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield
