"""Faster answers on a CPU: the network compiled by OpenVINO. Explanations by gradients stay with PyTorch.

OpenVINO reads the PyTorch module itself, so nothing is exported or stored. Its telemetry is shut out before it loads:
nothing leaves the machine.
"""

from __future__ import annotations

import logging
import sys
import threading
import warnings
from queue import Empty, SimpleQueue
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from medfusion.network import MedFusionNet
from medfusion.types import InputSpec

if TYPE_CHECKING:
    import openvino

log = logging.getLogger(__name__)


class Compiled:
    """A network as OpenVINO runs it, for (B, 3, h, w) float32 of one size and any B. Sessions share it."""

    def __init__(self, network: openvino.CompiledModel) -> None:
        self.network = network
        self.idle: SimpleQueue[openvino.InferRequest] = SimpleQueue()  # one request answers one caller at a time

    def __call__(self, batch: Tensor) -> Tensor:
        """Logits (B, outputs) float32."""
        try:
            request = self.idle.get_nowait()
        except Empty:
            request = self.network.create_infer_request()
        try:
            return torch.from_numpy(request.infer({0: batch.contiguous().numpy()})[0].copy())
        finally:
            self.idle.put(request)


class Backend:
    """Compiles one network when it is first asked to, in float32 and, where the processor gains, in bfloat16."""

    def __init__(self, network: MedFusionNet, spec: InputSpec, device: torch.device) -> None:
        self.network, self.spec = network, spec
        self.possible = device.type == "cpu" and isinstance(network, MedFusionNet)
        self.lock = threading.Lock()
        self.converted: Any = None
        self.compiled: dict[bool, Compiled | None] = {}

    def ready(self) -> Compiled | None:
        """The float32 network if it is compiled already."""
        return self.compiled.get(False)

    def get(self, bfloat16: bool = False) -> Compiled | None:
        """The compiled network; the first call takes about a second. None where it cannot be had: use PyTorch."""
        with self.lock:
            if self.possible and bfloat16 not in self.compiled:
                try:
                    self.compiled[bfloat16] = self.compile(bfloat16)
                except Exception as error:  # whatever a compiler may raise, PyTorch answers too
                    log.warning("OpenVINO cannot be used (%s); PyTorch answers instead", type(error).__name__)
                    self.possible = False
            return self.compiled.get(bfloat16)

    def compile(self, bfloat16: bool) -> Compiled:
        sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]  # so that importing it fails
        import openvino

        core = openvino.Core()
        if self.converted is None:
            shape = (self.spec.height_px, self.spec.width_px)
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # of tracing: that the checked input size becomes fixed is meant
                self.converted = openvino.convert_model(self.network, example_input=torch.zeros(2, 3, *shape))
            self.converted.reshape([-1, 3, *shape])
        gains = "BF16" in core.get_property("CPU", "OPTIMIZATION_CAPABILITIES")
        settings = {
            "PERFORMANCE_HINT": "LATENCY",
            "NUM_STREAMS": 1,
            "INFERENCE_NUM_THREADS": torch.get_num_threads(),
            "INFERENCE_PRECISION_HINT": "bf16" if bfloat16 and gains else "f32",
        }
        return Compiled(core.compile_model(self.converted, "CPU", settings))
