"""Labelled zips and folders: what is read, and what is refused with a sentence."""

import io
import tracemalloc
import zipfile
from pathlib import Path

import fsspec
import numpy as np
import pytest
from PIL import Image

from medfusion import sources
from medfusion.errors import DataError, PatientOverlap
from medfusion.folders import places_of
from medfusion.labelled import read_labelled, read_pictures
from medfusion.sources import at_hand
from medfusion.types import InputSpec
from tests import zips
from tests.core import dicom_files


def png(value: int, size: tuple[int, int] = (32, 32)) -> bytes:
    out = io.BytesIO()
    Image.new("L", size, value).save(out, "PNG")
    return out.getvalue()


def zipped(tmp_path: Path, files: dict[str, bytes]) -> Path:
    path = tmp_path / "set.zip"
    path.write_bytes(zips.zipped(files))
    return path


def test_folder_names_are_labels_without_a_manifest(tmp_path):
    data = read_labelled(zipped(tmp_path, {"ill/1.png": png(9), "well/2.png": png(1), "well/notes.txt": b"x"}))
    assert [(case.path, case.label, case.split) for case in data.cases] == [
        ("ill/1.png", "ill", ""),
        ("well/2.png", "well", ""),
    ]
    assert data.classes == ("ill", "well")


def test_a_folder_reads_like_its_zip(tmp_path):
    files = {"ill/1.png": png(9), "well/2.png": png(1)}
    for name, content in files.items():
        path = tmp_path / "set" / name
        path.parent.mkdir(parents=True)
        path.write_bytes(content)
    assert read_labelled(tmp_path / "set").cases == read_labelled(zipped(tmp_path, files)).cases


def test_manifest_gives_label_patient_and_split(tmp_path):
    manifest = b"path,label,patient_id,split\nx/1.png,ill,p1,train\nx/2.png,well,p2,test\n"
    data = read_labelled(zipped(tmp_path, {"manifest.csv": manifest, "x/1.png": png(1), "x/2.png": png(2)}))
    assert data.counts() == {"train": {"ill": 1, "well": 0}, "test": {"ill": 0, "well": 1}}
    assert data.subset("test").cases[0].patient_id == "p2"


def test_other_columns_of_the_manifest_stay_with_their_case(tmp_path):
    manifest = b"path,label,sex,site\n1.png,a,F,north\n2.png,b\n"
    data = read_labelled(zipped(tmp_path, {"manifest.csv": manifest, "1.png": png(1), "2.png": png(2)}))
    assert [dict(case.more) for case in data.cases] == [{"sex": "F", "site": "north"}, {"sex": "", "site": ""}]


@pytest.mark.parametrize("mark", [",", ";", "\t"])
def test_a_manifest_may_be_separated_as_spreadsheets_do(tmp_path, mark):
    manifest = "path,label,note\n1.png,a,x y\n2.png,b,\n".replace(",", mark).encode("utf-8-sig")
    data = read_labelled(zipped(tmp_path, {"manifest.csv": manifest, "1.png": png(1), "2.png": png(2)}))
    assert [(case.label, dict(case.more)) for case in data.cases] == [("a", {"note": "x y"}), ("b", {"note": ""})]


def test_columns_of_0_and_1_give_several_labels_or_none(tmp_path):
    manifest = b"path,label:effusion,label:mass,sex\n1.png,1,1,F\n2.png,0,1,M\n3.png,0,0,F\n"
    files = {f"{number}.png": png(number) for number in (1, 2, 3)}
    data = read_labelled(zipped(tmp_path, {"manifest.csv": manifest} | files))
    assert data.several
    assert data.classes == ("effusion", "mass")
    assert [case.label for case in data.cases] == ["effusion + mass", "mass", "none"]
    assert data.counts() == {"": {"effusion": 1, "mass": 2}}
    assert data.labels().tolist() == [[1, 1], [0, 1], [0, 0]]
    assert data.labels(("mass", "effusion")).tolist() == [[1, 1], [1, 0], [0, 0]]
    assert dict(data.cases[0].more) == {"sex": "F"}


def test_one_patient_on_two_sides_is_refused(tmp_path):
    manifest = b"path,label,patient_id,split\n1.png,a,p1,train\n2.png,a,p1,test\n"
    said = r"1 patient is in more than one split: 1\.png \(train\) and 2\.png \(test\)\. Keep all"
    with pytest.raises(PatientOverlap, match=said):
        read_labelled(zipped(tmp_path, {"manifest.csv": manifest, "1.png": png(1), "2.png": png(2)}))


@pytest.mark.parametrize(
    ("manifest", "said"),
    [
        (b"file,label\n1.png,a\n", "columns path and label"),
        (b"path,label\nmissing.png,a\n", "line 2.*missing.png"),
        (b"path,label,split\n1.png,a,dev\n", "line 2.*'dev' is unknown"),
        (b"path,label\n1.png,a\n1.png\n", "line 3: path or label is empty"),
        (b"path,label\n1.png,\xe4\n", "not readable as CSV in UTF-8"),
        (b'path,label\n"1.png,a\n', "not readable as CSV"),
        (b"path,label,label:x\n1.png,a,1\n", "in place of label"),
        (b"path,label:x\n1.png,yes\n", "line 2: label:x is 'yes'. Write 1"),
        (b"path,label:x\n1.png\n", "line 2: label:x is ''. Write 1"),
    ],
)
def test_a_wrong_manifest_is_refused_with_the_line(tmp_path, manifest, said):
    with pytest.raises(DataError, match=said):
        read_labelled(zipped(tmp_path, {"manifest.csv": manifest, "1.png": png(1)}))


def test_something_that_is_no_zip_is_refused(tmp_path):
    path = tmp_path / "set.zip"
    path.write_bytes(b"not a zip")
    with pytest.raises(DataError, match="neither a folder nor a readable zip"):
        read_labelled(path)
    with pytest.raises(DataError, match="no file or folder"):
        read_labelled(tmp_path / "nowhere.zip")


def test_pictures_come_in_the_order_of_the_cases_at_the_models_size(tmp_path):
    data = read_labelled(zipped(tmp_path, {"a/1.png": png(10, (40, 20)), "b/2.png": png(200)}))
    into = np.zeros((2, 64, 96, 3), np.uint8)
    pictures = list(read_pictures(data, InputSpec(64, 96), into))
    assert [int(p.mean()) for p in pictures] == [10, 200]
    assert np.array_equal(into, np.stack(pictures))


def test_an_unreadable_picture_is_named(tmp_path):
    data = read_labelled(zipped(tmp_path, {"a/1.png": png(1), "a/bad.png": b"junk"}))
    with pytest.raises(DataError, match=r"a/bad\.png"):
        list(read_pictures(data, InputSpec(32, 32)))


def test_an_unknown_label_is_named_with_the_classes_that_the_model_knows(tmp_path):
    data = read_labelled(zipped(tmp_path, {"a/1.png": png(1)}))
    with pytest.raises(DataError, match=r"'a', unknown to the model\. Its classes: x, y"):
        data.labels(("x", "y"))


@pytest.fixture
def listed(tmp_path):
    """A function that writes a CSV in a folder with two pictures beside it."""
    folder = tmp_path / "ward"
    (folder / "scans").mkdir(parents=True)
    for number in (1, 2):
        (folder / "scans" / f"{number}.png").write_bytes(png(number))

    def write(first: str, second: str = "scans/2.png") -> Path:
        path = folder / "cases.csv"
        path.write_text(f"path,label\n{first},ill\n{second},well\n", encoding="utf-8")
        return path

    return write


def test_a_csv_by_itself_names_files_beside_it(listed):
    data = read_labelled(listed("scans/1.png"))
    assert [(case.path, case.label) for case in data.cases] == [("scans/1.png", "ill"), ("scans/2.png", "well")]
    assert [int(picture[0, 0, 0]) for picture in read_pictures(data, InputSpec(32, 32))] == [1, 2]


def test_a_csv_may_name_files_elsewhere_only_in_folders_that_the_administrator_opened(listed, tmp_path, monkeypatch):
    away = tmp_path / "archive" / "9.png"
    away.parent.mkdir()
    away.write_bytes(png(9))
    for named in (str(away), "../archive/9.png", "/etc/hostname"):
        with pytest.raises(DataError, match="leads out of ward"):
            read_labelled(listed(named))
    monkeypatch.setenv("MEDFUSION_FOLDERS", str(away.parent))
    assert len(list(read_pictures(read_labelled(listed(str(away))), InputSpec(32, 32)))) == 2
    with pytest.raises(DataError, match="leads out of ward"):
        read_labelled(listed("/etc/hostname"))


def test_a_link_that_leads_out_of_a_folder_is_refused(tmp_path):
    (tmp_path / "set" / "ill").mkdir(parents=True)
    (tmp_path / "secret.png").write_bytes(png(1))
    link = tmp_path / "set" / "ill" / "1.png"
    link.symlink_to(tmp_path / "secret.png")
    with pytest.raises(DataError, match=r"'ill/1\.png' leads out of set"):
        read_labelled(tmp_path / "set")


@pytest.mark.parametrize(
    "name", ["../1.png", "ill/../../1.png", "/etc/1.png", "C:\\ill\\1.png", "..\\1.png", "\\\\host\\1.png", "c:1.png"]
)
def test_a_zip_with_names_outside_of_it_is_refused(tmp_path, name):
    with pytest.raises(DataError, match="would lie outside of it"):
        read_labelled(zipped(tmp_path, {"ill/1.png": png(1), "well/2.png": png(2), name: png(3)}))


def test_a_zip_with_a_link_is_refused(tmp_path):
    link = zipfile.ZipInfo("ill/2.png")
    link.external_attr = 0o120777 << 16
    path = zipped(tmp_path, {"ill/1.png": png(1)})
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr(link, "/etc/passwd")
    with pytest.raises(DataError, match=r"'ill/2\.png' is a link"):
        read_labelled(path)


def test_a_locked_zip_is_refused(tmp_path):
    content = bytearray(zipped(tmp_path, {"ill/1.png": png(1)}).read_bytes())
    entry = content.index(b"PK\x01\x02")
    content[entry + 8] |= 1
    (tmp_path / "locked.zip").write_bytes(content)
    with pytest.raises(DataError, match="locked by a password"):
        read_labelled(tmp_path / "locked.zip")


@pytest.mark.parametrize("method", [zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_a_zip_packed_without_a_bound_on_memory_is_refused(tmp_path, method):
    with zipfile.ZipFile(tmp_path / "set.zip", "w", method) as archive:
        archive.writestr("ill/1.png", png(1))
    with pytest.raises(DataError, match="packed in a way that is not read here"):
        read_labelled(tmp_path / "set.zip")


def test_a_name_that_stands_twice_in_a_zip_is_refused(tmp_path):
    with zipfile.ZipFile(tmp_path / "set.zip", "w") as archive, pytest.warns(UserWarning, match="Duplicate name"):
        archive.writestr("ill/1.png", png(1))
        archive.writestr("ill/1.png", png(2))
    with pytest.raises(DataError, match=r"holds 'ill/1\.png' twice"):
        read_labelled(tmp_path / "set.zip")


def test_a_bomb_of_many_files_is_refused_before_any_is_unpacked(tmp_path, monkeypatch):
    monkeypatch.setattr(sources, "BOMB_BYTES", 2**20)
    with zipfile.ZipFile(tmp_path / "set.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        for number in range(8):
            archive.writestr(f"ill/{number}.png", bytes(2**18))
    with pytest.raises(DataError, match="would unpack to"):
        read_labelled(tmp_path / "set.zip")


def test_a_file_that_is_larger_than_its_zip_says_is_not_unpacked_further(tmp_path):
    with zipfile.ZipFile(tmp_path / "set.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("ill/1.png", bytes(64 * 2**20))
    content = bytearray((tmp_path / "set.zip").read_bytes())
    entry = content.index(b"PK\x01\x02")
    content[entry + 24 : entry + 28] = (1000).to_bytes(4, "little")
    (tmp_path / "set.zip").write_bytes(content)
    data = read_labelled(tmp_path / "set.zip")
    tracemalloc.start()
    with pytest.raises(DataError, match="cannot be unpacked"):
        list(read_pictures(data, InputSpec(32, 32)))
    assert tracemalloc.get_traced_memory()[1] < 8 * 2**20
    tracemalloc.stop()


def test_a_zip_behind_an_address_is_fetched_once_and_again_when_it_changes(tmp_path, monkeypatch):
    monkeypatch.setenv("MEDFUSION_HOME", str(tmp_path / "home"))
    there = fsspec.filesystem("memory")
    there.pipe("/bucket/set.zip", b"first")
    found = at_hand("memory://bucket/set.zip")
    assert (found.name, found.read_bytes()) == ("set.zip", b"first")
    assert found.is_relative_to(tmp_path / "home")
    assert at_hand("memory://bucket/set.zip") == found
    there.pipe("/bucket/set.zip", b"second")
    assert at_hand("memory://bucket/set.zip").read_bytes() == b"second"
    assert at_hand(str(tmp_path)) == tmp_path


@pytest.mark.parametrize("address", ["memory://bucket/none.zip", "nothing://bucket/set.zip"])
def test_an_address_without_a_zip_is_an_error_that_names_it(address, tmp_path, monkeypatch):
    monkeypatch.setenv("MEDFUSION_HOME", str(tmp_path / "home"))
    with pytest.raises(DataError, match=f"{address} cannot be fetched"):
        at_hand(address)


def told(*names: str) -> list[tuple[str, str, str]]:
    return [(one.label, one.patient, one.split) for one in places_of(names)]


def test_folders_around_all_classes_say_nothing():
    assert told("set/2024/ill/1.png", "set/2024/well/2.png") == [("ill", "", ""), ("well", "", "")]


def test_folders_named_train_val_and_test_are_the_split_above_classes_or_below():
    assert told("chest/train/ILL/1.png", "chest/Test/ILL/2.png", "chest/valid/WELL/3.png") == [
        ("ILL", "", "train"),
        ("ILL", "", "test"),
        ("WELL", "", "val"),
    ]
    assert told("ill/train/1.png", "well/test/2.png") == [("ill", "", "train"), ("well", "", "test")]
    assert told("train/1.png", "test/2.png") == [("train", "", ""), ("test", "", "")]  # then there is nothing else


def test_a_folder_in_a_class_is_a_patient():
    assert told("ill/p1/1.png", "ill/p1/scans/2.png", "well/p2/3.png", "well/4.png") == [
        ("ill", "p1", ""),
        ("ill", "p1", ""),
        ("well", "p2", ""),
        ("well", "", ""),
    ]
    assert told("ill/images/1.png", "well/images/2.png") == [("ill", "", ""), ("well", "", "")]


def test_the_same_classes_in_several_folders_are_the_classes():
    assert told("north/ill/1.png", "north/well/2.png", "south/ill/3.png", "south/well/4.png") == [
        ("ill", "", ""),
        ("well", "", ""),
        ("ill", "", ""),
        ("well", "", ""),
    ]


def dicom(number: str) -> bytes:
    return dicom_files.dicom(np.zeros((32, 32), np.uint8), PatientID=number)


def test_dicom_headers_tell_patients_where_nobody_names_them(tmp_path):
    files = {"ill/1": dicom("A7"), "ill/2.dcm": dicom("A7"), "well/3.dcm": dicom("B8"), "well/4.png": png(1)}
    cases = read_labelled(zipped(tmp_path, files)).cases
    first, second, third, fourth = (case.patient_id for case in cases)
    assert first == second != third
    assert "A7" not in first  # a hash stands for it
    assert fourth == "well/4.png"
    manifest = b"path,label,patient_id\n" + b"".join(f"{name},a,p{n}\n".encode() for n, name in enumerate(files))
    named = read_labelled(zipped(tmp_path, files | {"manifest.csv": manifest})).cases
    assert [case.patient_id for case in named] == ["p0", "p1", "p2", "p3"]  # who names them knows best


def test_one_patient_number_in_all_files_is_a_placeholder(tmp_path):
    files = {f"{label}/{n}.dcm": dicom("ANONYMOUS") for n, label in enumerate(("ill", "ill", "well"))}
    assert [case.patient_id for case in read_labelled(zipped(tmp_path, files)).cases] == list(files)


def test_a_patient_of_dicom_headers_on_two_sides_is_refused(tmp_path):
    files = {"train/ill/1.dcm": dicom("A7"), "test/ill/2.dcm": dicom("A7"), "test/well/3.dcm": dicom("B8")}
    with pytest.raises(PatientOverlap, match=r"test/ill/2\.dcm \(test\) and train/ill/1\.dcm \(train\)"):
        read_labelled(zipped(tmp_path, files))
