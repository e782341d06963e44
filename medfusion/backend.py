"""Faster answers on a CPU: the network compiled by OpenVINO. Explanations by gradients stay with PyTorch.

OpenVINO reads the traced PyTorch module, so nothing is exported or stored. Its telemetry is shut out before it loads:
nothing leaves the machine. Unlike PyTorch's, its answer to a picture has the same bits alone and within any batch, with
any number of threads.
"""

from __future__ import annotations

import logging
import sys
import threading
import warnings
from queue import Empty, SimpleQueue
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import torch
from torch import Tensor, nn

from medfusion.network import Features, MedFusionNet
from medfusion.types import InputSpec

if TYPE_CHECKING:
    import openvino

log = logging.getLogger(__name__)

PART = 2  # pictures computed at a time where there are many: the maps of more do not fit the caches
LOGITS, FUSED, MAPS, EARLY = 0, 1, (2, 3, 4), 5  # outputs of a converted network
STREAMS = 8  # parts computed side by side at most, each with memory of its own; a batch of LIME has 16


# What of a network is compiled: all of it, for single answers; or for many, in two halves, from pictures to early maps
# (B, h/4, w/4, 24) and from these to logits.
Kind = Literal["one", "early", "late"]


class Compiled:
    """A network as OpenVINO runs it, for (B, 3, h, w) float32 of one size and any B. Sessions share it."""

    def __init__(self, network: openvino.CompiledModel, part: int) -> None:
        self.network, self.part = network, part
        self.idle: SimpleQueue[openvino.InferRequest] = SimpleQueue()  # one request computes one part at a time

    def __call__(self, batch: Tensor, output: int = LOGITS) -> Tensor:
        """Logits (B, outputs) float32, or another output for each picture; of many, there are only logits."""
        parts = [part.numpy() for part in batch.contiguous().split(self.part)]
        requests = [self.request() for _ in parts]
        for request, part in zip(requests, parts, strict=True):
            request.start_async({0: part}, share_inputs=True)
        for request in requests:
            request.wait()
        found = np.concatenate([request.get_output_tensor(output).data for request in requests])
        for request in requests:
            self.idle.put(request)
        return torch.from_numpy(found)

    def features(self, picture: Tensor) -> Features:
        """The maps of one picture (1, 3, h, w), of a network compiled for single answers."""
        request = self.request()
        request.infer({0: picture.contiguous().numpy()}, share_inputs=True)
        maps = [torch.from_numpy(request.get_output_tensor(place).data.copy()) for place in MAPS]
        self.idle.put(request)
        return Features(*maps)

    def request(self) -> openvino.InferRequest:
        try:
            return self.idle.get_nowait()
        except Empty:
            return self.network.create_infer_request()


class WithFeatures(nn.Module):
    """Logits, what they are decided by, and the maps that explanations start from: all are in the memory anyway.

    The early map comes as (B, h/4, w/4, 24): a line for each cell.
    """

    def __init__(self, network: MedFusionNet) -> None:
        super().__init__()
        self.network = network

    def forward(self, batch: Tensor) -> tuple[Tensor, ...]:
        early = self.network.early(batch).permute(0, 2, 3, 1)
        features = self.network.maps(self.network.late(early.permute(0, 3, 1, 2)))
        return (self.network.decide(features), self.network.fused(features), *features, early)


class Backend:
    """Compiles one network when it is first asked to, for each kind of use by itself.

    Single answers are computed in float32 by all threads together. Many are computed side by side, in bfloat16 where
    the processor multiplies it itself; others are slower with it. Between their halves, maps can be put together.
    """

    def __init__(self, network: MedFusionNet, spec: InputSpec, device: torch.device) -> None:
        self.network, self.spec = network, spec
        self.possible = device.type == "cpu" and isinstance(network, MedFusionNet)
        self.lock = threading.Lock()
        self.converted: Any = None
        self.compiled: dict[Kind, Compiled] = {}

    def get(self, kind: Kind = "one") -> Compiled | None:
        """The compiled network; the first call takes about a second. None where it cannot be had: use PyTorch."""
        with self.lock:
            if self.possible and kind not in self.compiled:
                try:
                    self.compiled[kind] = self.compile(kind)
                except Exception as error:  # whatever a compiler may raise, PyTorch answers too
                    log.warning(
                        "OpenVINO cannot be used (%s: %s). PyTorch answers instead.", type(error).__name__, error
                    )
                    self.possible = False
            return self.compiled.get(kind)

    def halves(self) -> tuple[Compiled, Compiled] | None:
        """From many pictures to early maps, and on to logits; None as with `get`."""
        early, late = self.get("early"), self.get("late")
        return (early, late) if early and late else None

    def compile(self, kind: Kind) -> Compiled:
        sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]  # so that importing it fails
        import openvino

        shape = (3, self.spec.height_px, self.spec.width_px)
        if self.converted is None:
            with warnings.catch_warnings(), torch.inference_mode():
                warnings.simplefilter("ignore")  # of tracing: that the checked input size becomes fixed is meant
                traced = torch.jit.trace(WithFeatures(self.network), torch.zeros(1, *shape), check_trace=False)
            self.converted = openvino.convert_model(traced)
        many = kind != "one"
        wanted = self.converted.clone()
        wanted.reshape([-1 if many else 1, *shape])  # a fixed size is a tenth faster
        threads = torch.get_num_threads()
        settings = {
            "PERFORMANCE_HINT": "THROUGHPUT" if many else "LATENCY",
            "NUM_STREAMS": min(threads, STREAMS) if many else 1,
            "INFERENCE_NUM_THREADS": threads,
            "INFERENCE_PRECISION_HINT": "bf16" if many and torch.cpu.get_capabilities().get("avx512_bf16") else "f32",
            "ENABLE_CPU_PINNING": False,  # pinned threads wait for their own core while another one is idle
        }
        network = openvino.Core().compile_model(part_of(wanted, kind), "CPU", settings)
        return Compiled(network, PART if many else 1)


def part_of(network: openvino.Model, kind: Kind) -> openvino.Model:
    """What of a converted network answers that kind. Cuts the network itself."""
    import openvino

    if kind == "one":
        return openvino.Model(network.results[:EARLY], network.parameters)
    if kind == "early":
        return openvino.Model(network.results[EARLY:], network.parameters)
    early = network.results[EARLY].input_value(0)
    start = openvino.opset13.parameter(early.partial_shape, np.float32)
    for place in early.get_target_inputs():
        place.replace_source_output(start.output(0))
    return openvino.Model([network.results[LOGITS]], [start])
