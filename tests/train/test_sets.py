"""Uploaded sets: what is no set leaves nothing behind, nothing is unpacked, and no name reaches another folder."""

import io
import json
import struct
import zipfile
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

from medfusion import places, sources
from medfusion.errors import DataError
from tests.train.test_preflight import scene
from tests.zips import zipped
from training import jobs, sets
from training.config import TrainConfig
from training.finish import About
from training.plan import Plan


@pytest.fixture(autouse=True)
def home(tmp_path, monkeypatch):
    monkeypatch.setenv("MEDFUSION_HOME", str(tmp_path / "home"))
    monkeypatch.delenv("MEDFUSION_FOLDERS", raising=False)
    return tmp_path / "home"


def png(seed: int) -> bytes:
    out = io.BytesIO()
    Image.fromarray(scene(seed)).save(out, "PNG")
    return out.getvalue()


PNG = [png(seed) for seed in range(72)]


def sound(ill: str = "ill", well: str = "well") -> dict[str, bytes]:
    """Two classes of 36 pictures."""
    return {f"{(ill, well)[number % 2]}/{number}.png": PNG[number] for number in range(72)}


def upload(content: bytes, name: str = "ward 7.zip") -> sets.StoredSet:
    return sets.keep(name, io.BytesIO(content), len(content))


def files_under(folder) -> list[str]:
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())


def test_a_set_is_kept_as_it_was_uploaded_under_the_name_that_the_user_knows(home):
    content = zipped(sound())
    stored = upload(content)
    assert (stored.name, stored.found) == ("ward 7.zip", None)
    assert stored.source.read_bytes() == content
    assert files_under(home) == [f"sets/{stored.id}/{name}" for name in ("data.zip", "name.txt", "origin.json")]
    assert sets.list_sets() == [stored]
    assert sets.find(stored.id) == stored


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "neither a folder nor a readable zip"),
        (b"%PDF-1.4 a report", "neither a folder nor a readable zip"),
        (zipped({"ill/1.png": b"x"})[:-30], "neither a folder nor a readable zip"),
        (zipped({}), "holds no files"),
        (zipped({"ill/": b""}), "holds no files"),
        (zipped({"1.png": b"x", "2.png": b"x"}), "no pictures in class folders"),
        (zipped({"notes/readme.txt": b"x", "__MACOSX/1.png": b"x"}), "no pictures in class folders"),
        (zipped({"manifest.csv": b"file;label\n1.png;ill\n"}), "needs the columns path and label"),
        (zipped({"manifest.csv": b"\xff\xfe\x00"}), "not readable as CSV in UTF-8"),
        (zipped({"manifest.csv": b"path,label\nx/1.png,ill\n"}), "'x/1.png' is not there"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",  # a zip holds the time, and a test is named once
)
def test_what_is_no_labelled_set_is_refused_by_the_users_name_and_leaves_nothing(content, said, home):
    with pytest.raises(DataError, match=said) as refused:
        upload(content)
    assert sets.ZIP not in str(refused.value)
    assert files_under(home) == []
    assert sets.list_sets() == []
    assert list(places.labelled_sets().iterdir()) == []


def test_a_directory_of_the_zip_that_lies_about_names_or_versions_is_refused(home):
    content = zipped({"ill/1.png": b"x", "well/2.png": b"x"})
    entry = content.index(b"PK\x01\x02")
    newer = content[: entry + 6] + struct.pack("<H", 99) + content[entry + 8 :]  # needs zip 9.9
    name = content.index(b"ill/1.png", entry)
    broken = content[:name] + b"\xff" + content[name + 1 :]
    broken = broken[: entry + 8] + struct.pack("<H", 0x800) + broken[entry + 10 :]  # says UTF-8, and is none
    for hostile in (newer, broken):
        with pytest.raises(DataError, match=r"ward 7\.zip is neither a folder nor a readable zip"):
            upload(hostile)
    assert files_under(home) == []


def test_a_set_that_the_disk_cannot_take_is_refused_before_it_is_written(home, monkeypatch):
    content = zipped(sound())
    free = len(content) + sets.SPARE_BYTES
    for left, fits in ((free - 1, False), (free, True)):
        monkeypatch.setattr(sets.shutil, "disk_usage", lambda _, left=left: SimpleNamespace(free=left))
        if fits:
            assert upload(content).source.exists()
        else:
            with pytest.raises(DataError, match=r"ward 7\.zip takes .* Free some space"):
                upload(content)
            assert not home.exists()


@pytest.mark.parametrize("name", ["../../../escaped/1.png", "/absolute/2.png", "C:\\windows\\3.png"])
def test_names_that_point_elsewhere_never_become_files(name, home, tmp_path):
    before = {path for path in tmp_path.rglob("*") if home not in path.parents and path != home}
    with pytest.raises(DataError, match="would lie outside of it"):
        upload(zipped(sound() | {name: png(1)}))
    assert files_under(home) == []
    assert {path for path in tmp_path.rglob("*") if home not in path.parents and path != home} == before


@pytest.mark.parametrize("label", ["..", "../../up", "a/b", "/etc", "x" * 300, "瘤" * 100, "a\0b", "CON", "a:b|c?"])
def test_a_label_may_read_as_it_likes_and_its_sheet_stays_in_its_place(label, home):
    rows = ["path,label", *(f"pictures/{number}.png,{(label, 'well')[number % 2]}" for number in range(72))]
    files = {f"pictures/{number}.png": PNG[number] for number in range(72)}
    stored = upload(zipped(files | {"manifest.csv": "\n".join(rows).encode()}))
    found = sets.check(stored.id)
    assert found.counts == {"": {label: 36, "well": 36}}
    assert len(sets.sheets(stored.id)) == 2
    assert {path.parent for path in home.rglob("*-*") if path.suffix in (".png", ".webp")} == {
        stored.folder / sets.SHEETS
    }


def test_a_file_that_unpacks_to_too_much_is_named_and_nothing_kept(home, monkeypatch):
    monkeypatch.setattr(sources, "MAX_FILE_BYTES", 2**20)
    with pytest.raises(DataError, match=r"ward 7\.zip: 'ill/bomb\.png' unpacks to over 1 MB\. Remove it"):
        upload(zipped(sound() | {"ill/bomb.png": bytes(2**20 + 1)}))
    assert files_under(home) == []


def test_a_file_that_is_damaged_inside_the_zip_is_named():
    content = bytearray(zipped(sound()))
    start = content.index(b"ill/0.png") + len("ill/0.png")
    content[start : start + 200] = b"\xff" * 200
    found = sets.check(upload(bytes(content)).id)
    assert "ill/0.png cannot be unpacked" in found.unreadable["ill/0.png"]
    assert found.blocks[0].startswith("ill/0.png: ill/0.png cannot be unpacked")


def test_a_check_is_kept_with_a_sheet_of_each_class():
    stored = upload(zipped(sound()))
    told: list[float] = []
    found = sets.check(stored.id, told.append)
    assert found.counts == {"": {"ill": 36, "well": 36}}
    assert found.blocks == []
    assert told == sorted(told)
    assert len(told) == 72 + 1  # each file, and the search for copies
    assert told[0] == 0 and told[-1] <= 1
    assert sets.find(stored.id).found == found
    drawn = sets.sheets(stored.id)
    assert [path.stem for path in drawn] == ["1-ill", "2-well"]
    for path in drawn:
        with Image.open(path) as sheet:
            assert np.asarray(sheet)[:80, :96].std() > 10


def test_copies_are_drawn_side_by_side_in_the_order_of_their_groups():
    same = {f"ill/{number}.png": png(number) for number in (500, 501)}
    again = {name.replace("/", "/z"): content for name, content in same.items()}
    stored = upload(zipped(same | again | sound()))
    found = sets.check(stored.id)
    assert found.duplicates == [["ill/500.png", "ill/z500.png"], ["ill/501.png", "ill/z501.png"]]
    drawn = sets.copies(stored.id)
    assert [path.stem for path in drawn] == ["1", "2"]
    for path in drawn:
        with Image.open(path) as row:
            first, second = np.split(np.asarray(row).astype(int), 2, axis=1)
            assert first.std() > 10
            assert np.abs(first - second).mean() < 8  # WebP loses a little
    sets.leave_out(stored.id, found.spare)
    sets.check(stored.id)
    assert sets.copies(stored.id) == []


def test_more_than_nine_classes_keep_their_order_on_the_sheets():
    files = {f"class {number:02d}/{seed}.png": png(10 * number + seed) for number in range(11) for seed in range(7)}
    stored = upload(zipped(files))
    sets.check(stored.id)
    assert [path.stem for path in sets.sheets(stored.id)] == [f"{k + 1}-class {k:02d}" for k in range(11)]


def test_what_is_left_out_is_not_looked_at_until_all_is_used_again():
    files = sound() | {"ill/torn.png": b"\x89PNG torn", "well/copy.png": png(1)}
    files |= {"ill/both.png": png(3)}  # 3 is well, too
    stored = upload(zipped(files))
    found = sets.check(stored.id)
    assert found.spare == ["ill/torn.png", "well/copy.png", "well/3.png", "ill/both.png"]
    sets.leave_out(stored.id, found.spare)
    assert sets.find(stored.id).found is None  # what was found holds no more
    again = sets.check(stored.id)
    assert again.blocks == []
    assert again.left_out == found.spare
    assert again.counts == {"": {"ill": 36, "well": 35}}
    sets.leave_out(stored.id, ["ill/0.png"])  # one more
    assert sets.check(stored.id).left_out == [*found.spare, "ill/0.png"]
    sets.leave_out(stored.id, [])
    assert sets.check(stored.id) == found
    assert zipfile.ZipFile(stored.source).namelist() == list(files)  # the files themselves stay


def test_a_file_that_was_left_out_is_not_on_a_sheet():
    white = io.BytesIO()
    Image.fromarray(np.full((96, 96), 255, np.uint8)).save(white, "PNG")
    stored = upload(zipped({"ill/a.png": white.getvalue()} | sound()))

    def has_white() -> bool:
        with Image.open(sets.sheets(stored.id)[0]) as sheet:
            return bool((np.asarray(sheet)[16:112, 16:112] > 250).all())

    sets.check(stored.id)
    assert has_white()
    sets.leave_out(stored.id, ["ill/a.png"])
    sets.check(stored.id)
    assert not has_white()


def started(source, status) -> jobs.Run:
    folder = places.runs() / "20251123-101500-00aa"
    folder.mkdir(parents=True, exist_ok=True)
    plan = Plan("sides", TrainConfig(start="scratch", frozen_stages=0), About("Sides"))
    jobs.write_plan(folder / jobs.PLAN, plan)
    (folder / jobs.SOURCE).write_text(json.dumps(str(source)))
    jobs.write_state(folder, jobs.State(status))
    return jobs.find(folder.name)


def test_a_set_is_deleted_once_no_run_needs_it():
    stored, other = upload(zipped(sound())), upload(zipped(sound()))
    assert started(stored.source, jobs.RUNNING).status == jobs.INTERRUPTED  # it may still go on
    with pytest.raises(DataError, match="A run still needs this set"):
        sets.delete(stored.id)
    assert stored.source.exists()
    sets.delete(other.id)
    for status in (jobs.DONE, jobs.CANCELLED, jobs.FAILED):
        started(stored.source, status)
        jobs.free_source(stored.source)
    sets.delete(stored.id)
    assert sets.list_sets() == []
    assert list(places.labelled_sets().iterdir()) == []
    with pytest.raises(DataError, match="not there any more"):
        sets.delete(stored.id)


@pytest.mark.parametrize("hostile", ["", ".", "..", "../outside", "/", "a\0b", "shared-.."])
def test_an_id_cannot_reach_outside_the_folder_of_sets(hostile, home):
    upload(zipped(sound()))
    outside = home / "outside"
    outside.mkdir()
    (outside / sets.NAME).write_text("not a set")
    (outside / sets.FOUND).write_text("{}")
    before = files_under(home)
    acts = [sets.find, sets.check, sets.delete, sets.forget_check, sets.sheets]
    for act in [*acts, lambda one: sets.leave_out(one, []), lambda one: sets.leave_out(one, ["ill/0.png"])]:
        with pytest.raises(DataError, match="not there any more"):
            act(hostile)
    assert files_under(home) == before


def test_sets_of_the_administrator_are_listed_and_checked_and_never_changed(tmp_path, monkeypatch):
    shared = tmp_path / "clinic"
    for name, content in sound().items():
        path = shared / "folder" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    (shared / "sides.zip").write_bytes(zipped(sound()))
    (shared / ".hidden.zip").write_bytes(b"")
    (shared / "notes.txt").write_text("no set")
    monkeypatch.setenv("MEDFUSION_FOLDERS", f"{shared}:{tmp_path / 'missing'}")
    before = files_under(shared)
    found = sets.list_sets()
    assert [(one.name, one.folder) for one in found] == [("clinic/folder", None), ("clinic/sides.zip", None)]
    for one in found:
        checked = sets.check(one.id)
        assert checked.counts == {"": {"ill": 36, "well": 36}}
        assert sets.find(one.id).found == checked
        assert len(sets.sheets(one.id)) == 2
        sets.leave_out(one.id, ["ill/0.png"])
        assert sets.check(one.id).counts == {"": {"ill": 35, "well": 36}}
        with pytest.raises(DataError, match="folder of the administrator"):
            sets.delete(one.id)
    assert files_under(shared) == before


def test_files_of_a_shared_set_may_be_left_out_before_any_check(tmp_path, monkeypatch):
    shared = tmp_path / "clinic"
    shared.mkdir()
    (shared / "sides.zip").write_bytes(zipped(sound()))
    monkeypatch.setenv("MEDFUSION_FOLDERS", str(shared))
    one = sets.list_sets()[0]
    sets.leave_out(one.id, ["ill/0.png"])
    assert sets.check(one.id).left_out == ["ill/0.png"]


def test_shared_sets_of_one_name_in_two_folders_are_two_sets(tmp_path, monkeypatch):
    for place, count in (("a", 72), ("b", 70)):
        folder = tmp_path / place / "clinic"
        folder.mkdir(parents=True)
        (folder / "sides.zip").write_bytes(zipped(dict(list(sound().items())[:count])))
    monkeypatch.setenv("MEDFUSION_FOLDERS", f"{tmp_path / 'a' / 'clinic'}:{tmp_path / 'b' / 'clinic'}")
    ids = [one.id for one in sets.list_sets()]
    assert [sum(sets.check(one).counts[""].values()) for one in ids] == [72, 70]


def test_names_in_any_script_are_kept():
    name = "Größe – 肺炎 ๑.zip"
    stored = upload(zipped(sound("肺炎", "gesund (größer)")), name)
    assert sets.find(stored.id).name == name
    found = sets.check(stored.id)
    assert found.counts == {"": {"gesund (größer)": 36, "肺炎": 36}}
    assert sets.find(stored.id).found == found
    assert [path.stem for path in sets.sheets(stored.id)] == ["1-gesund (größer)", "2-肺炎"]
    sets.leave_out(stored.id, ["肺炎/0.png"])
    assert sets.check(stored.id).left_out == ["肺炎/0.png"]


def test_a_check_that_was_written_half_reads_as_none():
    stored = upload(zipped(sound()))
    for torn in ("", "{", '{"counts": {}}', "[]", "null"):
        (stored.folder / sets.FOUND).write_text(torn)
        assert sets.find(stored.id).found is None
