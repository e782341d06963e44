"""The small set as a zip, as users have theirs."""

from __future__ import annotations

import io
import zipfile
from pathlib import Path

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
