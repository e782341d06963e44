"""Answers on a GPU: what half precision and compiling give over PyTorch as it is, by batch."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from medfusion import library
from tests.bench.explain import MODEL
from tests.bench.table import Row, median_s

BATCHES = (1, 32, 256)


def answers() -> list[Row]:
    """Nothing where there is no GPU."""
    return on("cuda") if torch.cuda.is_available() else []


@torch.inference_mode()
def on(device: str) -> list[Row]:
    model = library.load(MODEL, device)
    compiled = torch.compile(model.network, mode="reduce-overhead", dynamic=False)  # with CUDA graphs
    ways: dict[str, Callable[[Tensor], Tensor]] = {
        "as the program asks for one": model.logits,
        "as the program asks for many": lambda batch: model.logits(batch, many=True),
        "compiled": compiled,
        "compiled, half precision": lambda batch: half(compiled, batch),
    }
    rows = []
    for count in BATCHES:
        batch = torch.rand(count, 3, model.card.input.height_px, model.card.input.width_px, device=device) - 0.5
        plain = median_s(lambda batch=batch: model.network(batch).cpu(), repeats=15, warm_up=3)
        for name, answer in ways.items():
            ours = median_s(lambda answer=answer, batch=batch: answer(batch).cpu(), repeats=15, warm_up=3)
            rows.append(Row(f"{device}, {count} at once, {name}", ours, plain))
    return rows


def half(network: Callable[[Tensor], Tensor], batch: Tensor) -> Tensor:
    with torch.autocast(batch.device.type, torch.float16):
        return network(batch.contiguous(memory_format=torch.channels_last)).float()
