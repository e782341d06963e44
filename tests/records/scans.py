"""Small files for the worklist, with a patient in every place that a file has for one."""

import io

import numpy as np
import pydicom
from PIL import Image
from pydicom.data import get_testdata_file
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence

from medfusion.synthetic import chest_xray_dicom

NAME, NUMBER, PLACE = "Doe^Jane Unmistakable", "PID-4711-XYZ", "Hospital of Nowhere"
SECRETS = ("Unmistakable", NUMBER, PLACE, "19610203", "Dr.^Secret")


def png(seed: int = 0, side: int = 96) -> bytes:
    out = io.BytesIO()
    Image.fromarray(np.random.default_rng(seed).integers(0, 256, (side, side), dtype=np.uint8)).save(out, "PNG")
    return out.getvalue()


def dicom(instance: int = 1, patient: str = NUMBER, study: str = "1.2.3.4") -> bytes:
    data = pydicom.dcmread(get_testdata_file("CT_small.dcm"))
    data.PatientName, data.PatientID, data.PatientBirthDate = NAME, patient, "19610203"
    data.InstitutionName, data.ReferringPhysicianName = PLACE, "Dr.^Secret"
    data.StudyInstanceUID, data.SeriesInstanceUID = study, f"{study}.5"
    data.SOPInstanceUID = data.file_meta.MediaStorageSOPInstanceUID = f"{study}.5.{instance}"
    data.InstanceNumber = instance
    data.ImageComments = f"{NAME} was here"
    inner = Dataset()
    inner.PatientName, inner.PatientID, inner.ReferencedSOPInstanceUID = NAME, NUMBER, f"{study}.5.{instance}"
    data.SourceImageSequence = Sequence([inner])
    private = data.private_block(0x0029, "SECRET VENDOR", create=True)
    private.add_new(0x01, "LO", NAME)
    data.preamble = NAME.encode().ljust(128, b"\0")
    data.file_meta.SourceApplicationEntityTitle = "NOWHERE"
    out = io.BytesIO()
    pydicom.dcmwrite(out, data, enforce_file_format=True)
    return out.getvalue()


def chest(instance: int = 1) -> bytes:
    """The same patient's study in X-rays that a shipped model answers; the body slice above is refused."""
    named, data = pydicom.dcmread(io.BytesIO(dicom(instance))), pydicom.dcmread(io.BytesIO(chest_xray_dicom()))
    for keyword in (
        "PatientName",
        "PatientID",
        "StudyInstanceUID",
        "SeriesInstanceUID",
        "SOPInstanceUID",
        "InstanceNumber",
    ):
        setattr(data, keyword, named[keyword].value)
    data.file_meta.MediaStorageSOPInstanceUID = named.SOPInstanceUID
    out = io.BytesIO()
    pydicom.dcmwrite(out, data, enforce_file_format=True)
    return out.getvalue()
