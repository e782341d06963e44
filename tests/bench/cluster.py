"""`python -m tests.bench.cluster [FILES]`: an archive answered on one, two and three Ray nodes of this machine.

Needs requirements-cluster.txt. Each node has one core and one thread, so more nodes than cores gain nothing.
"""

import io
import os
import sys
import tempfile
import time
import zipfile
from pathlib import Path

import numpy as np
import ray
from PIL import Image
from ray.cluster_utils import Cluster

from medfusion.commands import archive


def main(files: int) -> None:
    with tempfile.TemporaryDirectory() as name:
        source = Path(name) / "scans.zip"
        write(source, files)
        sys.stdout.write(f"{files} pictures, {os.cpu_count()} cores\nnodes  seconds  pictures/s\n")
        for nodes in (1, 2, 3):
            taken = seconds(source, Path(name) / f"{nodes}.jsonl", nodes)
            sys.stdout.write(f"{nodes:>5} {taken:>8.1f} {files / taken:>11.1f}\n")


def write(source: Path, files: int) -> None:
    rng = np.random.default_rng(0)
    with zipfile.ZipFile(source, "w") as into:
        for number in range(files):
            out = io.BytesIO()
            small = Image.fromarray(rng.integers(0, 256, (32, 32), dtype=np.uint8))
            small.resize((512, 512)).save(out, "JPEG")
            into.writestr(f"{number:06}.jpg", out.getvalue())


def seconds(source: Path, out: Path, nodes: int) -> float:
    """From the command to the last row, the start of the actors and their models included."""
    cluster = Cluster()
    cluster.add_node(num_cpus=0, object_store_memory=100 * 2**20)
    for _ in range(nodes):
        cluster.add_node(num_cpus=1, object_store_memory=100 * 2**20)
    os.environ["RAY_ADDRESS"] = cluster.address
    try:
        began = time.perf_counter()
        archive.score(str(source), out, "chest-xray", "cpu", 1)
        return time.perf_counter() - began
    finally:
        ray.shutdown()
        cluster.shutdown()


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 2000)
