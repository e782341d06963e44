"""The small set as a zip, as users have theirs."""

from __future__ import annotations

import io
import zipfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.train.sides import pictures


@pytest.fixture
def labelled_zip(tmp_path) -> Path:
    path = tmp_path / "sides.zip"
    data = pictures(84, seed=1)
    with zipfile.ZipFile(path, "w") as archive:
        for index, (frame, label) in enumerate(zip(data.pictures, data.labels, strict=True)):
            out = io.BytesIO()
            Image.fromarray(frame).save(out, "PNG")
            archive.writestr(f"{'left' if label else 'right'}/{index}.png", out.getvalue())
    return path


@pytest.fixture
def several_zip(tmp_path) -> Path:
    """Pictures with a bright left, a bright right, both or neither: labels of their own, and a patient for each two."""
    path, rng = tmp_path / "several.zip", np.random.default_rng(4)
    rows = ["path,patient_id,label:left,label:right"]
    with zipfile.ZipFile(path, "w") as archive:
        for index in range(112):
            left, right = int(rng.random() < 0.5), int(rng.random() < 0.4)
            frame = rng.integers(0, 60, (64, 64), dtype=np.uint8)
            frame[16:48, 8:24] += np.uint8(150 * left)
            frame[16:48, 40:56] += np.uint8(150 * right)
            out = io.BytesIO()
            Image.fromarray(frame).save(out, "PNG")
            archive.writestr(f"scans/{index}.png", out.getvalue())
            rows.append(f"scans/{index}.png,p{index // 2},{left},{right}")
        archive.writestr("manifest.csv", "\n".join(rows))
    return path
