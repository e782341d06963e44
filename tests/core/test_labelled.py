"""Labelled zips and folders: what is read, and what is refused with a sentence."""

import io
import zipfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from medfusion.errors import DataError, PatientOverlap
from medfusion.labelled import read_labelled, read_pictures
from medfusion.types import InputSpec


def png(value: int, size: tuple[int, int] = (32, 32)) -> bytes:
    out = io.BytesIO()
    Image.new("L", size, value).save(out, "PNG")
    return out.getvalue()


def zipped(tmp_path: Path, files: dict[str, bytes]) -> Path:
    path = tmp_path / "set.zip"
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in files.items():
            archive.writestr(name, content)
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


def test_one_patient_on_two_sides_is_refused(tmp_path):
    manifest = b"path,label,patient_id,split\n1.png,a,p1,train\n2.png,a,p1,test\n"
    with pytest.raises(PatientOverlap, match="1 patients"):
        read_labelled(zipped(tmp_path, {"manifest.csv": manifest, "1.png": png(1), "2.png": png(2)}))


@pytest.mark.parametrize(
    ("manifest", "said"),
    [
        (b"file,label\n1.png,a\n", "columns path and label"),
        (b"path,label\nmissing.png,a\n", "line 2.*missing.png"),
        (b"path,label,split\n1.png,a,dev\n", "line 2.*'dev' is unknown"),
        (b"path,label\n1.png,a\n1.png\n", "line 3: path or label is empty"),
        (b"path,label\n1.png,\xe4\n", "not readable as CSV in UTF-8"),
        (b"path;label\n1.png;a\n", "separated by commas"),
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
