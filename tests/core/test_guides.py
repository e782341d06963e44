"""Guides and what is deployed by them do not rot: what they name exists, and what there is to set is named."""

import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from medfusion.__main__ import COMMANDS, build_parser
from training.__main__ import main as training_command

ROOT = Path(__file__).resolve().parents[2]
GUIDES = [ROOT / "guides" / "user.md", ROOT / "guides" / "operator.md"]
PAGES = [*GUIDES, ROOT / "README.md"]
TEXT = {path: path.read_text(encoding="utf-8") for path in PAGES}
DEPLOY = ROOT / "deploy"
UNITS = sorted(DEPLOY.glob("*.service"))
CODE = [path for part in ("medfusion", "training", "pages") for path in (ROOT / part).rglob("*.py")]
TOO_BIG = 100_000  # bytes of a picture
FROM_OTHERS = {"MLFLOW_DISABLE_TELEMETRY"}  # set by the program, not by its operator


def blocks(text: str) -> list[str]:
    """Lines of the commands in a page, those that go on put together, without comments."""
    fenced = re.findall(r"^```(\w*)\n(.*?)^```", text, re.M | re.S)
    found = "".join(block for language, block in fenced if not language).replace("\\\n", " ")
    return [line.split(" #")[0].strip() for line in found.splitlines()]


def anchors(text: str) -> set[str]:
    heads = re.findall(r"^#+ (.+)$", re.sub(r"^```.*?^```", "", text, flags=re.M | re.S), re.M)
    return {re.sub(r"[^\w -]", "", head.lower()).replace(" ", "-") for head in heads}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_and_pictures_lead_somewhere(page):
    links = re.findall(r"\]\((?!https?:)([^)]+)\)", TEXT[page])
    assert links
    for link in links:
        path, _, anchor = link.partition("#")
        target = (page.parent / path).resolve() if path else page
        assert target.exists(), link
        if anchor:
            assert anchor in anchors(target.read_text(encoding="utf-8")), link


def test_pictures_are_small_and_all_in_use():
    there = {path.name for path in (ROOT / "guides" / "pictures").iterdir()}
    assert there == set(re.findall(r"\(pictures/([^)]+)\)", TEXT[GUIDES[0]]))
    assert [path.name for path in (ROOT / "guides" / "pictures").iterdir() if path.stat().st_size > TOO_BIG] == []


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_commands_are_understood(page):
    """Each with its options, by the parser of the program itself."""
    named = re.findall(r"-m medfusion (.*)", "\n".join(blocks(TEXT[page])))
    for command in named:
        words = shlex.split(command)
        build_parser(words[0]).parse_args(words)  # ends the program where it does not understand
    for name in set(re.findall(r"-m training (\w+)", TEXT[page])):
        with pytest.raises(SystemExit) as ended:
            training_command([name, "--help"])
        assert ended.value.code == 0, name
    assert named or page.name == "user.md"


def test_the_operators_guide_knows_each_command_of_whoever_runs_the_program():
    clinical = {"inspect", "predict", "explain", "evaluate", "report", "verify"}
    named = set(re.findall(r"-m medfusion (\w+)", TEXT[GUIDES[1]]))
    assert named - clinical == set(COMMANDS) - clinical


def test_targets_of_make_exist():
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.M))
    for page in PAGES:
        named = re.findall(r"^(?:\w+=\S+ |sudo )*make ([a-z-]+)", "\n".join(blocks(TEXT[page])), re.M)
        named += re.findall(r"`make ([a-z-]+)", TEXT[page])
        assert set(named) <= targets, page.name


def test_every_variable_is_explained_and_every_explained_one_is_read():
    pattern = r"\b(?:MEDFUSION|MLFLOW|MEDMNIST|RAY)_[A-Z_]*[A-Z]\b"
    code = "\n".join(path.read_text(encoding="utf-8") for path in CODE)
    read = set(re.findall(rf"""["']({pattern})["']""", code)) - {"RAY_JOB_CONFIG_JSON_ENV_VAR"} - FROM_OTHERS
    table = TEXT[GUIDES[1]].split("## Settings")[1].split("\n## ")[0]
    assert set(re.findall(rf"^\| `({pattern})`", table, re.M)) == read
    for page in [*PAGES, *UNITS]:
        assert set(re.findall(pattern, page.read_text(encoding="utf-8"))) <= read, page.name


def test_what_the_containerfile_copies_is_there_and_is_all():
    lines = (DEPLOY / "Containerfile").read_text(encoding="utf-8").replace("\\\n", " ").splitlines()
    instructions = [line.split(maxsplit=1) for line in lines if line.strip() and not line.startswith("#")]
    known = {"ARG", "FROM", "WORKDIR", "RUN", "COPY", "ENV", "USER", "VOLUME", "EXPOSE", "STOPSIGNAL", "HEALTHCHECK"}
    assert {name for name, _ in instructions} == known | {"ENTRYPOINT", "CMD"}
    copied = {source for name, rest in instructions if name == "COPY" for source in rest.split()[:-1]}
    assert [source for source in copied if not (ROOT / source).exists()] == []
    packages = {"app.py", "pages", "medfusion", "training", "models", ".streamlit", "requirements.txt"}
    assert packages <= copied
    for name, rest in instructions:
        if name == "RUN":
            assert subprocess.run(["sh", "-n"], input=rest, text=True, check=False).returncode == 0, rest
    order = [name for name, _ in instructions]
    assert order.index("USER") > max(i for i, name in enumerate(order) if name in ("RUN", "COPY"))  # owned by root
    health = next(rest for name, rest in instructions if name == "HEALTHCHECK")
    compile(re.search(r'"(from .*)"\]', health)[1], "health", "exec")


def test_pytorch_from_another_index_is_asked_for_in_words_that_pip_understands():
    """Makefile and Containerfile take the line of torch from requirements.txt: pip refuses the whole as constraints."""
    taken = subprocess.run(
        ["sh", "-c", "grep -o '^torch[^ ]*' requirements.txt"], cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout
    assert re.fullmatch(r"torch>=[\d.]+,<\d+\n", taken)
    for name in ("Makefile", "deploy/Containerfile"):
        assert "grep -o '^torch[^ ]*' requirements.txt" in (ROOT / name).read_text(encoding="utf-8")


@pytest.mark.parametrize("path", UNITS, ids=lambda path: path.name)
def test_systemd_understands_the_unit(path, tmp_path):
    if not shutil.which("systemd-analyze"):
        pytest.skip("There is no systemd-analyze (Debian: apt install systemd)")
    unit = path.read_text(encoding="utf-8")
    program = re.search(r"^ExecStart=(\S+)", unit, re.M)[1]
    here = tmp_path / path.name
    here.write_text(unit.replace(program, sys.executable), encoding="utf-8")  # the program is not in its place here
    checked = subprocess.run(["systemd-analyze", "verify", str(here)], capture_output=True, text=True, check=False)
    assert (checked.returncode, checked.stderr) == (0, "")


@pytest.mark.parametrize("path", UNITS, ids=lambda path: path.name)
def test_units_forbid_the_same_and_start_what_there_is(path):
    lines, pages = (one.read_text(encoding="utf-8").splitlines() for one in (path, DEPLOY / "medfusion.service"))
    limits = r"(Protect|Private|Restrict[A-Z]|IPAddress|Capability|Ambient|NoNew|UMask|SystemCall)"
    shut = [line for line in pages if re.match(limits, line)]
    assert {"NoNewPrivileges=yes", "ProtectSystem=strict", "IPAddressDeny=any", "PrivateTmp=yes"} <= set(shut)
    assert set(shut) <= set(lines)
    assert {"User=medfusion", "StateDirectory=medfusion"} <= set(lines)  # both work on the same records
    assert any(line.startswith("MemoryMax=") for line in lines)
    (started,) = (line.partition("/bin/python ")[2] for line in lines if line.startswith("ExecStart="))
    if words := started.partition("-m medfusion ")[2].split():
        build_parser(words[0]).parse_args(words)  # ends the program where it does not understand
    else:
        assert started.startswith("-m streamlit run app.py")
    assert f"(../deploy/{path.name})" in TEXT[GUIDES[1]]
