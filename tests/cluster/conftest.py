"""A Ray cluster of several nodes on this machine."""

import os

import pytest

NODES = 3
MEMORY = 100 * 2**20


@pytest.fixture
def cluster(monkeypatch):
    """The cluster and its nodes of one core each, beside a head that only drives: it is never the one killed."""
    ray = pytest.importorskip("ray", reason="Ray is not installed: make test-cluster installs requirements-cluster.txt")
    from ray.cluster_utils import Cluster

    found = Cluster()
    found.add_node(num_cpus=0, object_store_memory=MEMORY, include_dashboard=True, dashboard_port=0)
    nodes = [found.add_node(num_cpus=1, object_store_memory=MEMORY) for _ in range(NODES)]
    monkeypatch.setenv("RAY_ADDRESS", found.address)
    for name in [name for name in os.environ if name.startswith("PYTEST")]:
        monkeypatch.delenv(name)  # children are no tests
    yield found, nodes
    ray.shutdown()
    found.shutdown()
