"""How checkpoints are written: whole under their name or not at all, so that a kill or a full disk leaves the last one.

Lightning's own way goes over the temporary folder of the system, and copies where that is another disk.
"""

from __future__ import annotations

import io
import os
from pathlib import Path
from typing import Any

import torch
from lightning.fabric.plugins import TorchCheckpointIO


class WholeCheckpoints(TorchCheckpointIO):
    def save_checkpoint(self, checkpoint: dict[str, Any], path: str | Path, storage_options: Any = None) -> None:
        held = io.BytesIO()  # what a full disk does is an OSError then, not one of many of PyTorch's
        torch.save(checkpoint, held)
        into = Path(path)
        into.parent.mkdir(parents=True, exist_ok=True)
        fresh = into.with_name(f".{into.name}.{os.getpid()}")
        try:
            fresh.write_bytes(held.getbuffer())
            fresh.replace(into)
        except BaseException:
            fresh.unlink(missing_ok=True)
            raise
