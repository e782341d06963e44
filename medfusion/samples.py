"""Pictures to try the program with, offline: real ones from installed packages, and one that this project draws."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from importlib.util import find_spec
from pathlib import Path

from medfusion.apart import read_scan
from medfusion.errors import NotAnImage
from medfusion.synthetic import chest_xray_dicom
from medfusion.types import Sample, Scan


@dataclass(frozen=True)
class Source:
    """A sample, the name of its file, and where its bytes come from."""

    sample: Sample
    name: str
    read: Callable[[], bytes]
    note: str = ""


def from_package(package: str, path: str) -> Callable[[], bytes]:
    """A reader of a file inside an installed package, which is not imported for it."""

    def read() -> bytes:
        spec = find_spec(package)
        file = Path(spec.origin).parent / path if spec and spec.origin else Path(path)
        try:
            return file.read_bytes()
        except OSError as error:
            raise NotAnImage(
                f"This sample is missing from the package {package!r}. Install the requirements again."
            ) from error

    return read


def scikit_image(id: str, title: str, name: str, origin: str, model_id: str = "", note: str = "") -> Source:
    return Source(Sample(id, title, origin, model_id), name, from_package("skimage", f"data/{name}"), note)


def pydicom(id: str, title: str, name: str, origin: str) -> Source:
    sample = Sample(id, title, f"{origin}, from the test files of pydicom.", "")
    return Source(sample, name, from_package("pydicom", f"data/test_files/{name}"))


MISTAKEN = (
    "The shipped model is wrong about this picture: the retina is healthy, and its camera unlike those that the model "
    "has learned from. See the limits on the model's card."
)
SYNTHETIC = "This picture is synthetic: drawn by a program, of no patient. Answers about it mean nothing."

SOURCES = {
    source.sample.id: source
    for source in (
        Source(
            Sample(
                "synthetic-chest",
                "Synthetic chest X-ray",
                "Synthetic: drawn by this program, of no patient.",
                "chest-xray",
            ),
            "synthetic-chest.dcm",
            chest_xray_dicom,
            SYNTHETIC,
        ),
        scikit_image(
            "fundus",
            "Fundus photograph",
            "retina.jpg",
            "A real photograph of a healthy retina (Häggström 2014, CC0), from scikit-image.",
            "retina",
            MISTAKEN,
        ),
        scikit_image(
            "histology",
            "Histology, colon",
            "ihc.png",
            "A real immunohistochemistry section (FHL2 with DAB and haematoxylin, CMMI), from scikit-image.",
        ),
        pydicom("ct-head", "CT of the head", "J2K_pixelrep_mismatch.dcm", "A real CT slice"),
        pydicom("ct-small", "CT, small", "CT_small.dcm", "A real CT slice of 128 × 128 pixels"),
        pydicom("mr", "MR image", "examples_overlay.dcm", "A real MR slice"),
        pydicom("mr-small", "MR, small", "MR_small.dcm", "A real MR slice of 64 × 64 pixels"),
        pydicom("ultrasound", "Ultrasound, 30 frames", "examples_ybr_color.dcm", "A real ultrasound loop in colour"),
        pydicom("nuclear", "Bone scintigram", "JPEG2000.dcm", "A real whole-body scintigram"),
    )
}


def list_samples() -> list[Sample]:
    return [source.sample for source in SOURCES.values()]


def sample_bytes(sample_id: str) -> bytes:
    """The file behind a sample. Raises NotAnImage when there is no such sample, or its package lost it."""
    return find(sample_id).read()


def read_sample(sample_id: str) -> Scan:
    source = find(sample_id)
    scan = read_scan(source.read(), name=source.name)
    return replace(scan, notes=(source.note, *scan.notes)) if source.note else scan


def find(sample_id: str) -> Source:
    if sample_id not in SOURCES:
        raise NotAnImage(f"There is no sample {sample_id!r}. Available: {', '.join(SOURCES)}.")
    return SOURCES[sample_id]
