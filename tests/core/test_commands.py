"""`python -m medfusion inspect` and `predict`: one entry a file, whatever is among the files."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from medfusion import library, router
from medfusion.__main__ import COMMANDS, main
from medfusion.commands import explain as explain_command
from medfusion.explain.words import CAUTIONS
from medfusion.network import build
from medfusion.types import InputSpec, ModelCard, OperatingPoint
from tests.core.dicom_files import dicom, ramp

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A DICOM file with two frames, a PNG with a Greek name, a text file that calls itself an image, an empty one."""
    place = tmp_path / "scans"
    (place / "deeper").mkdir(parents=True)
    frames = np.stack([ramp(64, 48), ramp(64, 48, start=9000)])
    (place / "a.dcm").write_bytes(dicom(frames, Modality="CT"))
    Image.fromarray(ramp(32, 40, dtype="u1")).save(place / "deeper" / "ακτίνα.png")
    (place / "deeper" / "ωμέγα.png").write_text("not an image")
    (place / "z").write_bytes(b"")
    (place / ".hidden").write_bytes(b"")
    return place


@pytest.fixture
def model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A tiny model with random weights for two classes; its threshold of 0 makes it always answer the second."""
    torch.manual_seed(0)
    card = ModelCard(
        id="dice",
        title="Dice",
        version="0.0.1",
        size="tiny",
        task="binary",
        classes=("normal", "ill"),
        modality="Anything",
        dicom_modalities=("CT",),
        colour=False,
        input=InputSpec(64, 64),
        temperature=1.0,
        operating_point=OperatingPoint((1.0, 0.0), "Always ill."),
        weights_sha256="",
    )
    library.save(tmp_path / "models" / "dice", card, build("tiny", 1))
    monkeypatch.setenv("MEDFUSION_MODELS", str(tmp_path / "models"))
    return "dice"


def test_inspect_prints_one_line_a_file_and_fails_when_one_does(folder, capsys):
    assert main(["inspect", str(folder)]) == 1
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines] == ["ok", "ok", "error", "error"]
    assert lines[0].endswith("a.dcm  48x64  CT  2 frames  DICOM  Explicit VR Little Endian")
    assert "ακτίνα.png  40x32  -  1 frame  PNG" in lines[1]
    assert "text file" in lines[2] and "empty" in lines[3]


def test_inspect_succeeds_when_every_file_is_read(folder, capsys):
    assert main(["inspect", str(folder / "a.dcm")]) == 0
    assert len(capsys.readouterr().out.splitlines()) == 1


def test_inspect_json_is_for_machines(folder, capsys):
    main(["inspect", str(folder), "--json"])
    entries = json.loads(capsys.readouterr().out)
    assert [entry["status"] for entry in entries] == ["ok", "ok", "error", "error"]
    first = entries[0]
    assert (first["width_px"], first["height_px"], first["frames"], first["modality"]) == (48, 64, 2, "CT")
    assert first["path"].endswith("a.dcm") and len(first["sha256"]) == 64
    assert "Secret" not in json.dumps(entries)
    assert set(entries[3]) == {"path", "status", "error"}


def test_a_file_that_is_not_there_is_an_entry_like_others(folder, capsys):
    assert main(["inspect", str(folder / "nowhere"), str(folder / "a.dcm")]) == 1
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("error") and "no such file" in lines[0] and lines[1].startswith("ok")


def test_a_line_break_in_a_name_does_not_make_two_lines(tmp_path, capsys):
    (tmp_path / "a\nok b.png").write_bytes(b"")
    main(["inspect", str(tmp_path)])
    assert len(capsys.readouterr().out.splitlines()) == 1


def test_an_empty_folder_is_an_error_in_one_sentence(tmp_path, capsys):
    assert main(["inspect", str(tmp_path)]) == 2
    assert capsys.readouterr().err == "error: This folder holds no files. Name a folder with scans in it.\n"


def test_predict_gives_probabilities_by_class_the_answer_and_the_model(folder, model, capsys):
    assert main(["predict", str(folder), "--model", model, "--json", "--device", "cpu"]) == 1
    entries = json.loads(capsys.readouterr().out)
    assert [entry["status"] for entry in entries] == ["ok", "ok", "error", "error"]
    first = entries[0]
    assert set(first["probabilities"]) == {"normal", "ill"}
    assert sum(first["probabilities"].values()) == pytest.approx(1, abs=1e-6)
    assert first["answers"] == ["ill"]
    assert (first["model_id"], first["model_version"]) == ("dice", "0.0.1")
    assert entries[1]["frame"] == 1
    assert "risk_along" not in entries[1]
    assert "empty" in entries[3]["error"]


def test_predict_reads_the_frame_that_is_asked_for(folder, model, capsys):
    def found(*extra: str) -> dict[str, object]:
        main(["predict", str(folder / "a.dcm"), "--model", model, "--json", "--device", "cpu", *extra])
        return json.loads(capsys.readouterr().out)[0]

    first, second = found("--frame", "1"), found("--frame", "2")
    assert [one["frame"] for one in (first, second)] == [1, 2]
    assert first["probabilities"] != second["probabilities"]
    assert "risk_along" not in first
    assert "has 2 frames" in str(found("--frame", "3")["error"])


def test_of_several_frames_the_most_suspicious_one_is_answered(folder, model, capsys):
    path = folder / "a.dcm"
    for frames in ((2000, 9000), (9000, 2000)):
        path.write_bytes(dicom(np.stack([ramp(64, 48, start=start) for start in frames]), Modality="CT"))
        words = ["predict", str(path), "--model", model, "--json", "--device", "cpu"]
        alone = []
        for frame in ("1", "2"):
            main([*words, "--frame", frame])
            alone.append(json.loads(capsys.readouterr().out)[0])
        main(words)
        (found,) = json.loads(capsys.readouterr().out)
        risks = [one["probabilities"]["ill"] for one in alone]
        assert found["risk_along"] == pytest.approx(risks, abs=1e-3)
        assert found["frame"] == 1 + risks.index(max(risks))
        assert found["probabilities"] == alone[found["frame"] - 1]["probabilities"]


def test_predict_without_json_is_one_readable_line(folder, model, capsys):
    paths = [str(folder / "a.dcm"), str(folder / "deeper" / "ακτίνα.png")]
    assert main(["predict", *paths, "--model", model, "--device", "cpu"]) == 0
    several, single = capsys.readouterr().out.splitlines()
    assert single.startswith("ok") and "  ill  (normal " in single and "[dice 0.0.1]" in single
    assert re.search(r"\[dice 0.0.1\]  frame [12] of 2", several)
    assert "frame" not in single


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["--model", "nobody"], "There is no model 'nobody'"),
        (["--model", "dice", "--frame", "0"], "Frames are counted from 1"),
        (["--model", "dice", "--device", "abacus"], "The device 'abacus' cannot be used"),
    ],
)
def test_mistakes_are_one_sentence_on_stderr(folder, model, capsys, words, sentence):
    assert main(["predict", str(folder), *words]) == 2
    shown = capsys.readouterr()
    assert shown.out == "" and sentence in shown.err and len(shown.err.splitlines()) == 1


def test_explain_writes_maps_and_how_they_came_about(folder, model, tmp_path, capsys):
    out = tmp_path / "maps"
    words = ["explain", str(folder / "a.dcm"), "--model", model, "--method", "gradcam,hirescam", "--frame", "2"]
    assert main([*words, "--target", "normal", "--out", str(out)]) == 0
    with np.load(out / "gradcam.npz") as stored:
        assert stored["heatmap"].shape == stored["signed"].shape == (64, 48)
        assert stored["raw"].shape == (2, 2)  # of 64 px, at stride 32
    told = json.loads((out / "explanation.json").read_text(encoding="utf-8"))
    assert (told["target"], told["frame"]) == ("normal", 2)
    assert told["methods"]["hirescam"]["settings"] == {"grid": "cnn"}
    assert told["methods"]["hirescam"]["degenerate"] in {None, *CAUTIONS}
    assert set(told["agreement"]) == {"gradcam,hirescam"}
    assert len(told["model"]["weights_sha256"]) == 64
    assert "a.dcm" not in (out / "explanation.json").read_text(encoding="utf-8")  # a name can hold a patient's
    assert "gradcam.npz" in capsys.readouterr().out
    for method in told["methods"].values():
        assert method["stability"]["jaccard"] == 1  # they draw no random numbers
        assert 0 <= method["faithfulness"]["deletion"] <= 1
        assert isinstance(method["faithfulness"]["is_better_than_random"], bool)
    assert {part["name"] for part in told["shortcuts"]["parts"]} <= {
        "the border", "the black background", "text or markers",
    }  # fmt: skip
    with Image.open(out / "gradcam.png") as drawn, Image.open(out / "scan.png") as plain:
        assert drawn.size == plain.size == (48, 64)

    assert main([*words, "--out", str(tmp_path / "again")]) == 0
    assert json.loads((tmp_path / "again" / "explanation.json").read_text())["target"] == "ill"  # the answer
    again = ["--target", "normal", "--out", str(tmp_path / "third")]
    assert main([*words, *again]) == 0
    with np.load(out / "gradcam.npz") as first, np.load(tmp_path / "third" / "gradcam.npz") as second:
        assert np.array_equal(first["raw"], second["raw"])


def test_explain_says_what_speaks_against_the_answer_that_it_explains(model, tmp_path, capsys):
    Image.fromarray(np.full((64, 64), 90, np.uint8)).save(tmp_path / "even.png")
    words = ["explain", str(tmp_path / "even.png"), "--model", model, "--method", "gradcam", "--quick"]
    assert main([*words, "--out", str(tmp_path / "maps")]) == 0
    told = json.loads((tmp_path / "maps" / "explanation.json").read_text())["prediction"]
    assert sum(told["probabilities"].values()) == pytest.approx(1, abs=1e-3)
    uniform = "This picture is almost uniform: there is nothing in it to read."
    assert uniform in told["warnings"]
    assert f"warning  even.png  {uniform}" in capsys.readouterr().out


def test_explain_goes_on_without_a_method_that_is_refused(folder, model, tmp_path, capsys):
    card = tmp_path / "models" / model / "card.json"
    told = json.loads(card.read_text())
    told["metrics"] = told.get("metrics", {}) | {"sanity": {"scans": 8, "weights": {"hirescam": {"stem": 0.9}}}}
    card.write_text(json.dumps(told))
    words = ["explain", str(folder / "a.dcm"), "--model", model, "--quick", "--out", str(tmp_path / "maps")]
    assert main([*words, "--method", "hirescam"]) == 2
    assert "shows the picture, not this model" in capsys.readouterr().err
    assert main([*words, "--method", "hirescam,gradcam"]) == 1
    lines = capsys.readouterr().out.splitlines()
    assert [line.split("  ")[0] for line in lines] == ["ok", "refused"]
    assert "HiResCAM shows the picture" in lines[1]
    assert not (tmp_path / "maps" / "hirescam.npz").exists()


def test_explain_scores_maps_against_a_mask_of_the_readers_own(folder, model, tmp_path, capsys):
    mask = np.zeros((64, 48), np.uint8)
    mask[:32] = 255
    Image.fromarray(mask).save(tmp_path / "mask.png")
    out = tmp_path / "maps"
    words = ["explain", str(folder / "a.dcm"), "--model", model, "--method", "gradcam", "--quick", "--out", str(out)]
    assert main([*words, "--mask", str(tmp_path / "mask.png")]) == 0
    scored = json.loads((out / "explanation.json").read_text())["methods"]["gradcam"]["mask"]
    assert set(scored) == {"points", "energy", "iou", "by_chance"}
    assert scored["by_chance"] == 0.5
    with np.load(out / "gradcam.npz") as stored:
        heatmap = stored["heatmap"]
    assert scored["energy"] == pytest.approx(heatmap[:32].sum() / max(heatmap.sum(), 1e-9), abs=1e-3)
    assert f"Against the mask: the strongest place lies {'in' if scored['points'] else 'out'}side" in (
        told := capsys.readouterr().out
    )
    assert f"{100 * scored['energy']:.0f} % of the evidence is inside, of an even map 50 %" in told
    assert main([*words, "--mask", str(folder / "z")]) == 2
    assert "empty" in capsys.readouterr().err


def test_an_explanation_can_be_made_again_bit_for_bit(folder, model, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(explain_command, "SEEDS", 2)
    out = tmp_path / "maps"
    words = ["explain", str(folder / "a.dcm"), "--model", model, "--device", "cpu"]
    maps = ["--method", "gradcam,lime", "--seed", "3", "--frame", "2", "--target", "ill", "--out", str(out)]
    assert main([*words, *maps]) == 0
    told = json.loads((out / "explanation.json").read_text())
    assert told["methods"]["lime"]["stability"]["seeds"] == [3, 4]
    with np.load(out / "lime.npz") as stored:
        assert stored["deviation_over_seeds"].shape == stored["raw"].shape

    again = [*words, "--replay", str(out / "explanation.json"), "--out", str(tmp_path / "again")]
    capsys.readouterr()
    assert main(again) == 0
    assert [line.split()[0] for line in capsys.readouterr().out.splitlines()] == ["same", "same"]
    for method in ("gradcam", "lime"):
        with np.load(out / f"{method}.npz") as first, np.load(tmp_path / "again" / f"{method}.npz") as second:
            assert all(np.array_equal(first[name], second[name]) for name in ("raw", "signed", "heatmap"))

    alone = ["explain", "--replay", str(out / "explanation.json"), "--out", str(tmp_path / "alone"), "--device", "cpu"]
    assert main(alone) == 0  # from the file and what lies beside it: no scan, no model named
    assert [line.split()[0] for line in capsys.readouterr().out.splitlines()] == ["same", "same"]
    with np.load(out / "lime.npz") as first, np.load(tmp_path / "alone" / "lime.npz") as second:
        assert all(np.array_equal(first[name], second[name]) for name in ("raw", "signed", "heatmap"))
    (out / "seen.png").write_bytes((tmp_path / "alone" / "gradcam.png").read_bytes())
    assert main(alone) == 2
    assert "seen.png is not the one" in capsys.readouterr().err
    (out / "seen.png").unlink()
    assert main(alone) == 2
    assert "Name the scan as well" in capsys.readouterr().err

    told["methods"]["lime"]["sha256"]["raw"] = "0"
    (out / "explanation.json").write_text(json.dumps(told))
    assert main(again) == 1
    assert [line.split()[0] for line in capsys.readouterr().out.splitlines()] == ["same", "differs"]


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"scan_sha256": "0"}, "tells of another scan"),
        ({"model": {"id": "dice", "weights_sha256": "0"}}, "tells of another model"),
        ({"methods": 3}, "no account of an explanation"),
        ({"target": "gout"}, "no account of an explanation"),
    ],
)
def test_a_replay_of_something_else_is_refused(folder, model, tmp_path, capsys, change, sentence):
    words = ["explain", str(folder / "a.dcm"), "--model", model, "--method", "gradcam", "--quick"]
    out = tmp_path / "maps"
    assert main([*words, "--out", str(out)]) == 0
    told = json.loads((out / "explanation.json").read_text())
    assert told["methods"]["gradcam"]["faithfulness"] is None
    (out / "explanation.json").write_text(json.dumps(told | change))
    assert main([*words, "--replay", str(out / "explanation.json"), "--out", str(tmp_path / "again")]) == 2
    assert sentence in capsys.readouterr().err


def test_an_abstention_is_said_before_the_answer(folder, model, tmp_path, monkeypatch, capsys):
    place = tmp_path / "models" / "dice"
    card = library.read_card(place)
    for limits, said in (((0.0, 0.0), True), ((1.1, 0.0), False)):
        library.save(place, replace(card, set_thresholds=limits), build("tiny", 1))
        assert main(["predict", str(folder / "a.dcm"), "--model", model]) == 0
        assert ("abstains, else ill" in capsys.readouterr().out) == said


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["--method", "gradcam,tealeaves"], "There is no method 'tealeaves'"),
        (["--target", "gout"], "The model has no class 'gout'. Choose one of: normal, ill."),
        (["--frame", "3"], "This scan has 2 frames"),
    ],
)
def test_mistakes_of_explain_are_told_and_nothing_is_written(folder, model, tmp_path, capsys, words, sentence):
    out = tmp_path / "maps"
    assert main(["explain", str(folder / "a.dcm"), "--model", model, "--out", str(out), *words]) == 2
    assert sentence in capsys.readouterr().err
    assert not out.exists()


def test_explain_needs_a_scan_and_a_model_where_nothing_is_made_again(model, tmp_path, capsys):
    assert main(["explain", "--model", model, "--out", str(tmp_path / "maps")]) == 2
    assert "Give PATH and --model ID" in capsys.readouterr().err


@pytest.mark.parametrize("command", COMMANDS)
def test_help_says_that_this_is_for_research_only(command, capsys):
    with pytest.raises(SystemExit) as stopped:
        main([command, "--help"])
    assert stopped.value.code == 0
    assert "research use only" in " ".join(capsys.readouterr().out.split())


def test_inspecting_does_not_wait_for_pytorch(folder):
    code = (
        "import sys; from medfusion.__main__ import main; main(['inspect', sys.argv[1]]); print('torch' in sys.modules)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(folder / "a.dcm")], capture_output=True, text=True, cwd=ROOT, check=True
    )
    assert done.stdout.splitlines()[-1] == "False"
    assert done.stderr == ""


@pytest.fixture
def install_router(model: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[float], None]:
    """Puts a foundation beside the model dice, which takes pictures up to a limit for its own."""
    folder = tmp_path / "models"
    monkeypatch.setattr(library, "SHIPPED", folder)

    def install(limit: float) -> None:
        card = replace(library.read_card(folder / model), id="foundation", role="foundation")
        sha256 = library.save(folder / "foundation", card, build("tiny", 1)).weights_sha256
        flat = (np.zeros(384, np.float32), np.eye(384, dtype=np.float32))
        router.save(folder / model, router.Reference(*flat, limit, sha256))

    return install


def test_predict_auto_picks_the_model_that_a_picture_is_for(folder, install_router, capsys):
    install_router(limit=1e9)
    assert main(["predict", str(folder / "deeper" / "ακτίνα.png"), "--model", "auto", "--json"]) == 0
    (entry,) = json.loads(capsys.readouterr().out)
    assert entry["model_id"] == "dice"
    assert entry["route"]["distances"]["dice"] < 1
    assert entry["override"] is None


def test_predict_auto_refuses_a_picture_that_is_for_none(folder, install_router, capsys):
    install_router(limit=1e-9)
    assert main(["predict", str(folder / "deeper" / "ακτίνα.png"), "--model", "auto", "--json"]) == 1
    (entry,) = json.loads(capsys.readouterr().out)
    assert entry["status"] == "refused"
    assert "none of those" in entry["error"]
    assert main(["predict", str(folder / "deeper" / "ακτίνα.png"), "--model", "dice"]) == 0
    assert "does not look like" in capsys.readouterr().out


def test_predict_marks_a_model_that_was_chosen_against_the_router(folder, install_router, capsys):
    install_router(limit=1e-9)
    assert main(["predict", str(folder / "deeper" / "ακτίνα.png"), "--model", "dice", "--json"]) == 0
    (entry,) = json.loads(capsys.readouterr().out)
    assert entry["override"].endswith(entry["route"]["reason"])
    assert entry["override"] in entry["warnings"]


def test_predict_auto_without_a_foundation_says_what_to_do(folder, model, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(library, "SHIPPED", tmp_path)
    assert main(["predict", str(folder), "--model", "auto"]) == 2
    assert "Name one with --model" in capsys.readouterr().err
