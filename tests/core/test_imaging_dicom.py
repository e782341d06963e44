"""DICOM pixels come out as they were put in, through every coding and every step of the grey-scale pipeline."""

from __future__ import annotations

import warnings
from io import BytesIO
from pathlib import Path

import numpy as np
import pydicom
import pytest
from pydicom import Dataset, Sequence, dcmread
from pydicom.uid import (
    MPEG2MPML,
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    HTJ2KLossless,
    ImplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGLSLossless,
    JPEGLSNearLossless,
    RLELossless,
)

from medfusion.errors import DamagedFile, ScanError, UnsupportedScan
from medfusion.imaging import display, read_scan
from medfusion.types import Identity, Window
from tests.core.dicom_files import compressed, dicom, lut_item, make_dataset, ramp, to_bytes

SHIPPED = Path(pydicom.__file__).parent / "data" / "test_files"
RED, GREEN, BLUE, GREY = (255, 0, 0), (0, 255, 0), (0, 0, 255), (100, 100, 100)


def colours(half: int = 8) -> np.ndarray:
    """(2 half, 2 half, 3): quarters of red, green, blue and grey."""
    quarters = np.array([[RED, GREEN], [BLUE, GREY]], np.uint8)
    return quarters.repeat(half, axis=0).repeat(half, axis=1)


@pytest.mark.parametrize("dtype", ["u1", "i1", "u2", "i2", "u4", "i4"])
def test_values_of_every_stored_type_come_through(dtype):
    pixels = ramp(dtype=dtype, start=-50 if dtype[0] == "i" else 0, step=1 if dtype[1] == "1" else 100)
    frames = read_scan(dicom(pixels)).frames
    assert frames.shape == (1, 16, 16)
    np.testing.assert_array_equal(frames[0], pixels)


@pytest.mark.parametrize("syntax", [ImplicitVRLittleEndian, ExplicitVRLittleEndian, DeflatedExplicitVRLittleEndian])
def test_uncompressed_transfer_syntaxes_agree(syntax):
    pixels = ramp(start=-300, step=7, dtype="i2")
    np.testing.assert_array_equal(read_scan(dicom(pixels, syntax)).frames[0], pixels)


def test_big_endian_words_are_swapped():
    pixels = ramp(step=7)
    scan = read_scan(dicom(pixels, ExplicitVRBigEndian, PixelData=pixels.astype(">u2").tobytes()))
    np.testing.assert_array_equal(scan.frames[0], pixels)
    assert scan.frames.dtype == np.dtype("=u2")


@pytest.mark.parametrize("syntax", [RLELossless, JPEGLSLossless, JPEG2000Lossless])
@pytest.mark.parametrize("dtype", ["u1", "u2"])
def test_lossless_codings_return_the_same_grey_values(syntax, dtype):
    pixels = ramp(32, 32, dtype=dtype, step=1 if dtype == "u1" else 60)
    scan = read_scan(compressed(pixels, syntax))
    np.testing.assert_array_equal(scan.frames[0], pixels)
    assert scan.transfer_syntax == syntax.name


@pytest.mark.parametrize("syntax", [RLELossless, JPEGLSLossless, JPEG2000Lossless])
def test_lossless_codings_return_the_same_colours(syntax):
    np.testing.assert_array_equal(read_scan(compressed(colours(32), syntax)).frames[0], colours(32))


def test_near_lossless_stays_within_its_stated_error():
    pixels = ramp(32, 32, step=3)
    dataset = make_dataset(pixels)
    dataset.compress(JPEGLSNearLossless, jls_error=2, generate_instance_uid=False)
    difference = read_scan(to_bytes(dataset)).frames[0].astype(int) - pixels
    assert np.abs(difference).max() <= 2


def test_bits_above_those_stored_are_ignored():
    pixels = ramp(step=16)  # 0..4080, 12 bits
    dirty = pixels | 0xA000
    scan = read_scan(dicom(dirty, BitsStored=12, HighBit=11))
    np.testing.assert_array_equal(scan.frames[0], pixels)


def test_signed_values_are_extended_from_their_stored_bits():
    pixels = ramp(start=-128, dtype="i2")
    garbage = (pixels.view("u2") & 0x0FFF) | 0x5000
    scan = read_scan(dicom(garbage.view("i2"), BitsStored=12, HighBit=11))
    np.testing.assert_array_equal(scan.frames[0], pixels)


def test_planar_configurations_agree():
    planes = colours().transpose(2, 0, 1).tobytes()
    by_plane = read_scan(dicom(colours(), PlanarConfiguration=1, PixelData=planes)).frames
    np.testing.assert_array_equal(by_plane[0], colours())


def test_ybr_full_becomes_the_rgb_it_was_made_from():
    # PS3.3 C.7.6.3.1.2: red (255, 0, 0) is Y 76, Cb 85, Cr 255
    ybr = np.broadcast_to(np.array([76, 85, 255], np.uint8), (16, 16, 3)).copy()
    frames = read_scan(dicom(ybr, PhotometricInterpretation="YBR_FULL")).frames
    np.testing.assert_allclose(frames[0, 0, 0].astype(int), RED, atol=2)


def test_ybr_full_422_becomes_rgb_at_full_width():
    quads = np.tile(np.array([76, 76, 85, 255], np.uint8), 16 * 8).tobytes()  # Y1 Y2 Cb Cr for each pair
    data = dicom(np.zeros((16, 16, 3), np.uint8), PhotometricInterpretation="YBR_FULL_422", PixelData=quads)
    frames = read_scan(data).frames
    assert frames.shape == (1, 16, 16, 3)
    np.testing.assert_allclose(frames[0, 15, 15].astype(int), RED, atol=2)


def test_deep_colours_keep_their_most_significant_bits():
    deep = colours().astype("u2") * 257
    np.testing.assert_array_equal(read_scan(dicom(deep)).frames[0], colours())


@pytest.mark.parametrize("words", [True, False], ids=["16-bit entries", "8-bit entries"])
def test_palette_colours_are_looked_up_from_the_first_mapped_value(words):
    indices = np.full((16, 16), 10, np.uint8)
    indices[0, 0], indices[0, 1], indices[0, 2] = 11, 3, 200  # inside, below, above
    tables = {"Red": (255, 0, 7, 0), "Green": (0, 255, 8, 0), "Blue": (0, 0, 9, 255)}
    attributes: dict[str, object] = {"PhotometricInterpretation": "PALETTE COLOR"}
    for name, table in tables.items():
        entries = np.array(table, np.uint16) * 257 if words else np.array(table, np.uint8)
        attributes[f"{name}PaletteColorLookupTableDescriptor"] = [4, 10, 16 if words else 8]
        attributes[f"{name}PaletteColorLookupTableData"] = entries.tobytes()
    frame = read_scan(dicom(indices, **attributes)).frames[0]
    assert [tuple(frame[p]) for p in ((1, 1), (0, 0), (0, 1), (0, 2))] == [RED, GREEN, RED, BLUE]


def test_a_file_without_preamble_is_read():
    pixels = ramp()
    file = dicom(pixels)
    np.testing.assert_array_equal(read_scan(file[132:]).frames[0], pixels)


@pytest.mark.parametrize("implicit", [True, False])
def test_a_bare_data_set_without_any_meta_information_is_read(implicit):
    pixels = ramp()
    dataset, file = make_dataset(pixels), BytesIO()
    del dataset.file_meta
    dataset.save_as(file, implicit_vr=implicit, little_endian=True)
    np.testing.assert_array_equal(read_scan(file.getvalue()).frames[0], pixels)


@pytest.mark.parametrize("pack", [dicom, lambda p, **k: compressed(p, RLELossless, **k)], ids=["native", "RLE"])
def test_frames_are_counted_where_number_of_frames_is_missing(pack):
    pixels = np.stack([ramp(), ramp(start=1000), ramp(start=2000)])
    dataset = dcmread(BytesIO(pack(pixels)))
    del dataset.NumberOfFrames
    np.testing.assert_array_equal(read_scan(to_bytes(dataset)).frames, pixels)


def test_rescaling_gives_hounsfield_units_in_a_small_integer_type():
    scan = read_scan(dicom(ramp(), RescaleSlope="2", RescaleIntercept="-1024", BitsStored=12, HighBit=11))
    assert scan.frames.dtype == np.int16
    assert scan.frames[0, 0, :3].tolist() == [-1024, -1022, -1020]


def test_fractional_slopes_give_floats():
    scan = read_scan(dicom(ramp(), RescaleSlope="0.5", RescaleIntercept="1"))
    assert scan.frames.dtype == np.float32
    assert scan.frames[0, 0, :3].tolist() == [1.0, 1.5, 2.0]


def test_each_frame_is_rescaled_by_its_own_functional_group():
    groups = []
    for slope in ("1", "10"):
        rescale, group = Dataset(), Dataset()
        rescale.RescaleSlope, rescale.RescaleIntercept = slope, "0"
        group.PixelValueTransformationSequence = Sequence([rescale])
        groups.append(group)
    data = dicom(np.stack([ramp(), ramp()]), PerFrameFunctionalGroupsSequence=Sequence(groups))
    assert read_scan(data).frames[:, 0, 3].tolist() == [3, 30]


def test_modality_lut_then_voi_lut_then_inversion():
    """Stored 1 → modality table [5, 6, 7] from 0 → 6 → VOI table [0, 50, 255] from 5 → 50 → inverted 205.

    Any other order gives another answer: the VOI table first would saturate, inversion first would look up elsewhere.
    """
    scan = read_scan(
        dicom(
            np.ones((16, 16), np.uint8),
            PhotometricInterpretation="MONOCHROME1",
            ModalityLUTSequence=Sequence([lut_item(0, [5, 6, 7], 16)]),
            VOILUTSequence=Sequence([lut_item(5, [0, 50, 255], 8)]),
            WindowCenter="1",
            WindowWidth="2",
        )
    )
    assert np.unique(scan.frames).tolist() == [6]
    assert np.unique(display(scan)).tolist() == [205]


def test_rescale_goes_before_the_window_and_inversion_comes_last():
    # stored 0..255 → HU -1000..-745; exact window from -1000 to -800: stored 100 is in its middle
    attributes = {"WindowCenter": "-900", "WindowWidth": "200", "VOILUTFunction": "LINEAR_EXACT"}
    data = dicom(
        ramp(), RescaleSlope="1", RescaleIntercept="-1000", PhotometricInterpretation="MONOCHROME1", **attributes
    )
    picture = display(read_scan(data)).reshape(-1)
    assert (picture[0], picture[100], picture[200], picture[255]) == (255, 255 - 128, 0, 0)


def test_a_voi_lut_for_negative_values_may_state_its_first_value_as_unsigned():
    table = [0, 128, 255]
    data = dicom(
        np.full((16, 16), -1, np.int16),
        VOILUTSequence=Sequence([lut_item(65534, table, 8)]),  # 65534 stands for -2
    )
    assert np.unique(display(read_scan(data))).tolist() == [128]


def test_windows_keep_order_names_and_function_and_lose_those_without_width():
    scan = read_scan(
        dicom(
            ramp(),
            WindowCenter=["40", "-600", "5"],
            WindowWidth=["400", "1500", "0"],
            WindowCenterWidthExplanation=["SOFT", "LUNG", "NONE"],
            VOILUTFunction="SIGMOID",
        )
    )
    assert scan.windows == (Window(40, 400, "SOFT", "SIGMOID"), Window(-600, 1500, "LUNG", "SIGMOID"))


def test_padding_does_not_stretch_the_automatic_window():
    pixels = ramp(start=1000)
    pixels[0] = 63536  # padding over a whole row
    picture = display(read_scan(dicom(pixels, PixelPaddingValue=63536)))
    assert picture[1, 0] == 0
    assert picture[15, 15] == 255
    assert read_scan(dicom(pixels, PixelPaddingValue=63536)).padding == (63536, 63536)


def test_one_bit_masks_are_shown_in_black_and_white():
    packed = np.packbits(np.tile([0, 1], 128).astype(np.uint8), bitorder="little").tobytes()
    data = dicom(np.zeros((16, 16), np.uint8), BitsAllocated=1, BitsStored=1, HighBit=0, PixelData=packed)
    assert display(read_scan(data))[0, :4].tolist() == [0, 255, 0, 255]


@pytest.mark.parametrize(
    ("attributes", "spacing"),
    [
        ({"PixelSpacing": ["0.5", "0.25"], "ImagerPixelSpacing": ["1", "1"]}, (0.5, 0.25)),
        ({"ImagerPixelSpacing": ["0.2", "0.1"]}, (0.2, 0.1)),
        ({"PixelSpacing": ["0", "0"]}, None),
        ({}, None),
    ],
)
def test_spacing_is_that_of_the_patient_before_that_of_the_detector(attributes, spacing):
    assert read_scan(dicom(ramp(), **attributes)).spacing_mm == spacing


def test_spacing_of_ultrasound_comes_from_its_region_in_centimetres():
    region = Dataset()
    region.PhysicalUnitsXDirection = region.PhysicalUnitsYDirection = 3
    region.PhysicalDeltaX, region.PhysicalDeltaY = 0.05, 0.02
    data = dicom(ramp(), SequenceOfUltrasoundRegions=Sequence([region]))
    assert read_scan(data).spacing_mm == pytest.approx((0.2, 0.5))


@pytest.mark.parametrize(("said", "modality", "warned"), [("NO", "US", False), ("", "US", True), ("", "DX", False)])
def test_text_in_the_picture_is_warned_of_where_its_kind_often_has_some(said, modality, warned):
    scan = read_scan(dicom(ramp(), Modality=modality, BurnedInAnnotation=said))
    assert any("often write into the picture" in note for note in scan.notes) is warned


def test_headers_are_kept_and_identity_only_when_asked_for():
    data = dicom(
        ramp(),
        Modality="DX",
        BodyPartExamined="CHEST",
        Laterality="L",
        ImageLaterality="R",
        ImageOrientationPatient=["1", "0", "0", "0", "0", "-1"],
        BurnedInAnnotation="YES",
    )
    scan = read_scan(data, name="ß.dcm")
    assert (scan.name, scan.modality, scan.body_part, scan.laterality, scan.orientation) == (
        "ß.dcm",
        "DX",
        "CHEST",
        "R",
        ("L", "F"),
    )
    assert any("burned" in note for note in scan.notes)
    assert scan.identity is None
    assert "Secret" not in repr(scan) and "S3CRET" not in repr(scan)
    named = read_scan(data, with_identity=True).identity
    assert isinstance(named, Identity) and (named.patient_name, named.patient_id) == ("Secret^Name", "S3CRET")


def test_broken_header_values_do_not_hide_the_picture():
    data = dicom(ramp(), WindowCenter="40", WindowWidth="400").replace(b"DS\x04\x00400 ", b"DS\x04\x00wide")
    scan = read_scan(data)
    assert scan.windows == ()
    np.testing.assert_array_equal(scan.frames[0], ramp())


@pytest.mark.parametrize(
    ("sop_class", "name"),
    [
        ("1.2.840.10008.5.1.4.1.1.88.22", "Enhanced SR"),
        ("1.2.840.10008.5.1.4.1.1.481.3", "RT Structure Set"),
        ("1.2.840.10008.5.1.4.1.1.104.1", "Encapsulated PDF"),
    ],
)
def test_objects_without_pixels_are_named_in_words(sop_class, name):
    with pytest.raises(UnsupportedScan, match=rf"{name}.*holds no picture.*Load the image series"):
        read_scan(dicom(None, SOPClassUID=sop_class))


def test_a_coding_that_cannot_be_decoded_is_named():
    dataset = make_dataset(ramp())
    dataset.file_meta.TransferSyntaxUID = MPEG2MPML
    dataset.PixelData = pydicom.encaps.encapsulate([b"\0\0\1\xb3" + b"\0" * 20])
    dataset["PixelData"].is_undefined_length = True
    with pytest.raises(UnsupportedScan, match=r"MPEG2 .*Export it again"):
        read_scan(to_bytes(dataset))


@pytest.mark.parametrize("kept", [0.2, 0.5, 0.97])
@pytest.mark.parametrize("pack", [dicom, lambda p: compressed(p, JPEG2000Lossless)], ids=["native", "JPEG 2000"])
def test_a_truncated_file_is_called_damaged(pack, kept):
    noise = np.random.default_rng(0).integers(0, 4096, (64, 64)).astype(np.uint16)
    data = pack(noise)
    with pytest.raises((DamagedFile, UnsupportedScan), match=r"(again|series)"):
        read_scan(data[: int(len(data) * kept)])


def test_a_picture_larger_than_its_header_says_is_refused_before_decoding():
    dataset = dcmread(BytesIO(compressed(ramp(64, 64), JPEG2000Lossless)))
    dataset.Rows = dataset.Columns = 32
    with pytest.raises(DamagedFile, match="another size"):
        read_scan(to_bytes(dataset))


def shipped_files() -> list[Path]:
    return sorted(path for path in SHIPPED.rglob("*") if path.is_file())


@pytest.mark.parametrize("path", shipped_files(), ids=lambda path: str(path.relative_to(SHIPPED)))
def test_every_file_that_ships_with_pydicom_gives_a_scan_or_a_sentence(path, capfd):
    try:
        scan = read_scan(path.read_bytes(), name=path.name)
    except ScanError as error:
        assert str(error).endswith(".") and len(str(error)) < 250 and str(path.parent) not in str(error)
    else:
        assert display(scan, scan.frame_count - 1).dtype == np.uint8
    assert "Traceback" not in capfd.readouterr().err


# What pydicom's file cannot show, each for a reason of its own; everything else with pixels must decode.
UNDECODABLE = {
    "JPEG2000-embedded-sequence-delimiter.dcm",  # its stream is cut off
    "MR_truncated.dcm",
    "meta_missing_tsyntax.dcm",  # no rows and columns
    "nested_priv_SQ.dcm",  # no rows and columns
}


def test_every_shipped_file_with_decodable_pixels_decodes():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        failed = set()
        for path in shipped_files():
            if path.suffix in (".json", ".txt", ".dump", ".icc", ".gz") or "PixelData" not in dcmread(path, force=True):
                continue
            try:
                read_scan(path.read_bytes())
            except ScanError:
                failed.add(path.name)
    assert failed == UNDECODABLE


def test_twelve_bit_jpeg_decodes_to_the_published_values():
    frame = read_scan((SHIPPED / "JPGExtended.dcm").read_bytes()).frames[0]
    assert (frame[420, 140], frame[230, 120]) == (244, 95)


def test_warnings_of_decoders_do_not_reach_the_console(capfd, caplog, recwarn):
    read_scan((SHIPPED / "MR_small_padded.dcm").read_bytes())
    with pytest.raises(ScanError):
        read_scan((SHIPPED / "MR_truncated.dcm").read_bytes())
    assert capfd.readouterr().err == ""
    assert not caplog.records and not recwarn.list


def test_high_throughput_jpeg_2000_has_a_decoder():
    assert pydicom.pixels.get_decoder(HTJ2KLossless).is_available
