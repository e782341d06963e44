"""What was answered for one scan, to keep: JSON with every figure, a PDF, and DICOM objects for the archive.

The DICOM objects are a Structured Report (PS3.16 TID 1500) with the probabilities as measurements, and a Secondary
Capture with the maps. They belong to the patient and the study of the scan; their own identifiers are new. The JSON and
the PDF hold no identity. Research use only, and each of them says so.
"""

from __future__ import annotations

import copy
import io
import json
from collections.abc import Mapping
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import highdicom
import numpy as np
import pydicom
from highdicom import sr
from highdicom.sr.coding import CodedConcept
from pydicom.dataset import Dataset
from pydicom.sr.codedict import codes
from pydicom.uid import generate_uid

import medfusion
from medfusion import conformal, inference, verified
from medfusion.errors import ConfigError
from medfusion.explain import record
from medfusion.imaging.geometry import edges
from medfusion.imaging.reader import quiet_decoders
from medfusion.library import Model
from medfusion.report_parts import RESEARCH, Report, montage, plain
from medfusion.report_pdf import as_pdf
from medfusion.types import ModelCard, Prediction, Scan

FILE = "report.json"
SCHEME = "99MEDFUSION"  # of codes that no standard has
TYPE_2 = (  # attributes that the objects must have, empty where the scan has none
    "PatientID",
    "PatientName",
    "PatientBirthDate",
    "PatientSex",
    "AccessionNumber",
    "StudyID",
    "StudyDate",
    "StudyTime",
    "ReferringPhysicianName",
)
__all__ = ["RESEARCH", "Report", "for_archive", "model_of", "verify", "write"]
TOLERANCE = 1e-4  # between figures of another machine's processor and ours


def write(folder: Path, report: Report) -> list[Path]:
    """report.json and report.pdf, and of a DICOM scan report-sr.dcm and report-sc.dcm. Raises ConfigError."""
    files = {FILE: as_json(report).encode(), "report.pdf": as_pdf(report)}
    if report.scan.file_format == "DICOM" and report.content:
        with quiet_decoders():  # highdicom quotes names of persons that it thinks odd
            files |= {"report-sr.dcm": as_sr(report), "report-sc.dcm": as_sc(report)}
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for name, content in files.items():
            (folder / name).write_bytes(content)
    except OSError as error:
        raise ConfigError(f"The report cannot be written ({error.strerror}). Choose another folder.") from error
    return [folder / name for name in files]


def for_archive(report: Report) -> list[bytes]:
    """The DICOM objects of a report."""
    with quiet_decoders():  # highdicom quotes names of persons that it thinks odd
        return [as_sr(report), as_sc(report)]


def as_json(report: Report) -> str:
    told = asdict(report.prediction) | {"elapsed_s": None}
    held = {
        "made": datetime.now(UTC).isoformat(timespec="seconds"),
        "notice": RESEARCH,
        "prediction": told,
        "maps": record.account(report.model, report.made, report.tests),
        "version": medfusion.__version__,
    }
    return json.dumps(held, indent=2, ensure_ascii=False) + "\n"


def model_of(path: Path) -> str:
    """The id of the model that a report names. Raises ConfigError."""
    try:
        return str(json.loads(path.read_text(encoding="utf-8"))["prediction"]["model_id"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ConfigError(f"{path.name} is no report of this program. Name another.") from error


def verify(path: Path, model: Model, scan: Scan) -> list[tuple[str, bool]]:
    """Answer and maps made again: each figure of a report with whether it holds. Raises ConfigError."""
    try:
        told: Mapping[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        said, maps = told["prediction"], told["maps"]
        frame = int(said["frame"])
        found = [
            ("scan", said["scan_sha256"] == maps["scan_sha256"] == scan.sha256),
            ("model", maps["model"] == about(model.card) and said_by(said) == (model.card.id, model.card.version)),
        ]
        if not all(holds for _, holds in found) or not 0 <= frame < scan.frame_count:
            return found
        again = inference.predict(model, scan, frame)
        for name, one, other in zip(again.classes, said["probabilities"], again.probabilities, strict=True):
            found.append((f"probability of {name}", abs(float(one) - other) <= TOLERANCE))
        found.append(("answer", tuple(said["answers"]) == again.answers))
        found.append(
            ("operating point", said["operating_point"] == json.loads(json.dumps(asdict(again.operating_point))))
        )
        found.append(
            ("plausible classes", said["plausible"] == (list(again.plausible) if again.plausible else again.plausible))
        )
    except OSError as error:
        raise ConfigError(f"{path.name} cannot be read ({error.strerror}). Check the path.") from error
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ConfigError(f"{path.name} is no report of this program. Name another.") from error
    replayed = record.replay(record.as_account(maps, path), model, scan)
    found += [(f"map by {name}", same) for name, (_, same) in replayed.items()]
    try:
        return found + verified.around(maps, model, scan, [one for one, _ in replayed.values()])
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ConfigError(f"{path.name} is no report of this program. Name another.") from error


def about(card: ModelCard) -> dict[str, str]:
    return {"id": card.id, "version": card.version, "weights_sha256": card.weights_sha256}


def said_by(said: Mapping[str, Any]) -> tuple[object, object]:
    return said["model_id"], said["model_version"]


def source_of(report: Report) -> Dataset:
    """The header of the scan, with what the objects made of it must have."""
    if report.source is not None:
        data = copy.deepcopy(report.source)
    else:
        data = pydicom.dcmread(io.BytesIO(report.content), force=True, stop_before_pixels=True)
    for name in TYPE_2:
        if name not in data:
            setattr(data, name, "")
    for name in ("StudyInstanceUID", "SeriesInstanceUID", "SOPInstanceUID"):
        if not data.get(name):
            setattr(data, name, generate_uid())
    return data


def coded(value: str, meaning: str) -> CodedConcept:
    return CodedConcept(value[:16], SCHEME, meaning[:64])


def as_sr(report: Report) -> bytes:
    data, said, card = source_of(report), report.prediction, report.model.card
    frames = [said.frame + 1] if report.scan.frame_count > 1 else None
    source = sr.SourceImageForMeasurementGroup(data.SOPClassUID, data.SOPInstanceUID, frames)
    algorithm = sr.AlgorithmIdentification(
        name=f"MedFusionNet {card.id}",
        version=card.version,
        parameters=[
            f"weights sha256 {card.weights_sha256}",
            RESEARCH,
            said.operating_point.rule or "most probable class",
        ],
    )
    group = sr.MeasurementsAndQualitativeEvaluations(
        tracking_identifier=sr.TrackingIdentifier(uid=generate_uid(), identifier="MedFusionNet answer"),
        algorithm_id=algorithm,
        source_images=[source],
        measurements=[
            sr.Measurement(coded(f"P-{number}", f"Probability of {name}"), float(p), codes.UCUM.NoUnits)
            for number, (name, p) in enumerate(zip(said.classes, said.probabilities, strict=True))
        ],
        qualitative_evaluations=[
            sr.QualitativeEvaluation(
                coded("ANSWER", "Answer at the operating point"), coded(f"C-{said.classes.index(name)}", name)
            )
            for name in said.answers
        ],
    )
    for words in against(said):
        group[0].ContentSequence.append(
            sr.TextContentItem(codes.DCM.Comment, words, sr.RelationshipTypeValues.CONTAINS)
        )
    observer = sr.ObserverContext(
        observer_type=codes.DCM.Device,
        observer_identifying_attributes=sr.DeviceObserverIdentifyingAttributes(
            uid=generate_uid(), name="MedFusionNet", manufacturer_name="MedFusionNet", model_name=card.id
        ),
    )
    content = sr.MeasurementReport(
        observation_context=sr.ObservationContext(observer_device_context=observer),
        procedure_reported=codes.LN.CTUnspecifiedBodyRegion
        if data.get("Modality") == "CT"
        else coded("IMAGING", "Imaging procedure"),
        imaging_measurements=[group],
        title=codes.DCM.ImagingMeasurementReport,
    )
    made = sr.EnhancedSR(
        evidence=[data],
        content=content,
        series_instance_uid=generate_uid(),
        series_number=9001,
        sop_instance_uid=generate_uid(),
        instance_number=1,
        manufacturer=medfusion.MAKER,
        is_complete=True,
        is_final=False,
        is_verified=False,
        series_description=f"{medfusion.MAKER}, research use only",
    )
    return written(made, report)


def against(said: Prediction) -> list[str]:
    """What speaks against an answer, in sentences."""
    if said.plausible is None or not conformal.abstains(said.plausible):
        return list(said.warnings)
    why = conformal.in_words([plain(name) for name in said.plausible])
    return [f"The model abstains. {why}", *said.warnings]


def as_sc(report: Report) -> bytes:
    data = source_of(report)
    made = highdicom.sc.SCImage(
        np.asarray(montage(report)),
        "RGB",
        8,
        "PATIENT",
        data.StudyInstanceUID,
        generate_uid(),
        9002,
        generate_uid(),
        1,
        medfusion.MAKER,
        patient_id=data.PatientID,
        patient_name=data.PatientName,
        patient_birth_date=data.PatientBirthDate,
        patient_sex=data.PatientSex or None,
        accession_number=data.AccessionNumber,
        study_id=data.StudyID,
        study_date=data.StudyDate,
        study_time=data.StudyTime,
        referring_physician_name=data.ReferringPhysicianName,
        patient_orientation=("L", "F"),
    )
    made.PatientOrientation = list(report.scan.orientation or ()) if edges(report.scan.orientation) else []
    made.BurnedInAnnotation = "YES"
    made.Laterality = report.scan.laterality or ""
    return written(made, report)


def written(made: Dataset, report: Report) -> bytes:
    made.SeriesDescription = f"{medfusion.MAKER}, research use only"
    for keyword in ("StudyDescription", "IssuerOfPatientID"):  # so that the study stays the same in all its objects
        if told := (report.source if report.source is not None else source_of(report)).get(keyword):
            setattr(made, keyword, told)
    made.SoftwareVersions = medfusion.__version__
    made.SpecificCharacterSet = "ISO_IR 192"  # names are written in UTF-8, however the scan has them
    out = io.BytesIO()
    pydicom.dcmwrite(out, made, enforce_file_format=True)
    return out.getvalue()
