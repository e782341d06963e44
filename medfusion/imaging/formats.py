"""Tell from a file's first bytes what it is. Suffixes are never looked at."""

from __future__ import annotations

from medfusion.errors import NotAnImage

EXPORT = "Export the picture as PNG, JPEG, TIFF or DICOM and load that."
UNPACK = "Unpack it and load the files inside."
CONVERT = "Load the DICOM series that it was made from, or export a slice as PNG or TIFF."

READABLE = {
    b"\x89PNG\r\n\x1a\n": "PNG",
    b"\xff\xd8\xff": "JPEG",
    b"II*\0": "TIFF",
    b"MM\0*": "TIFF",
    b"II+\0": "TIFF",  # BigTIFF
    b"MM\0+": "TIFF",
}

# (offset, signature, what it is, what to do)
FOREIGN = (
    (0, b"%PDF", "a PDF document", EXPORT),
    (0, b"GIF8", "a GIF picture", EXPORT),
    (0, b"BM", "a BMP picture", EXPORT),
    (8, b"WEBP", "a WebP picture", EXPORT),
    (8, b"AVI ", "an AVI video", EXPORT),
    (8, b"WAVE", "a sound recording", EXPORT),
    (4, b"ftyphei", "a HEIC photograph", EXPORT),
    (4, b"ftyphev", "a HEIC photograph", EXPORT),
    (4, b"ftypmif1", "a HEIC photograph", EXPORT),
    (4, b"ftypavif", "an AVIF picture", EXPORT),
    (4, b"ftyp", "an MP4 video", EXPORT),
    (4, b"jP  \r\n", "a JPEG 2000 picture outside DICOM", EXPORT),
    (0, b"\xff\x4f\xff\x51", "a JPEG 2000 picture outside DICOM", EXPORT),
    (0, b"8BPS", "a Photoshop document", EXPORT),
    (0, b"\xd0\xcf\x11\xe0", "a Microsoft Office document", EXPORT),
    (0, b"PK\x03\x04", "a ZIP archive (or a document packed as one)", UNPACK),
    (0, b"\x1f\x8b", "a gzip archive", UNPACK),
    (0, b"7z\xbc\xaf", "a 7-Zip archive", UNPACK),
    (0, b"Rar!", "a RAR archive", UNPACK),
    (257, b"ustar", "a tar archive", UNPACK),
    (344, b"n+1\0", "a NIfTI volume", CONVERT),
    (344, b"ni1\0", "a NIfTI header", CONVERT),
    (0, b"NRRD", "an NRRD volume", CONVERT),
    (0, b"ObjectType", "a MetaImage volume", CONVERT),
    (0, b"\x89HDF", "an HDF5 file", CONVERT),
)


def recognise(data: bytes) -> str:
    """The format to read the file as: "PNG", "JPEG", "TIFF" or "DICOM". Raises NotAnImage for everything else."""
    if not data:
        raise NotAnImage("This file is empty. Export or copy it again.")
    if data[128:132] == b"DICM":
        return "DICOM"  # first, for a DICOM file may carry a TIFF header in its preamble
    for signature, file_format in READABLE.items():
        if data.startswith(signature):
            return file_format
    if starts_with_dicom_element(data):
        return "DICOM"
    for offset, signature, what, remedy in FOREIGN:
        if data.startswith(signature, offset):
            raise NotAnImage(f"This is {what}, which is not read here. {remedy}")
    if is_text(data[:2048]):
        raise NotAnImage(f"This is a text file, not an image, whatever its name says. {EXPORT}")
    raise NotAnImage(f"This file is not an image of a kind that is read here. {EXPORT}")


def starts_with_dicom_element(data: bytes) -> bool:
    """Whether the file starts with a plausible DICOM element: the preamble and "DICM" are missing in old files."""
    if len(data) < 8 or data[:2] not in (b"\x02\0", b"\x08\0", b"\0\x02", b"\0\x08"):
        return False
    explicit_vr = data[4:6].isalpha() and data[4:6].isupper()
    return explicit_vr or int.from_bytes(data[4:8], "little") < min(len(data), 1024)


def is_text(head: bytes) -> bool:
    """Whether bytes read as text: UTF-8 (cut anywhere) without control characters."""
    try:
        text = head.decode("utf-8")
    except UnicodeDecodeError as error:
        if error.start < len(head) - 4:
            return False
        text = head[: error.start].decode("utf-8")
    return all(char.isprintable() or char in "\r\n\t\f\ufeff" for char in text)
