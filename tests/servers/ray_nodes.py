"""A Ray cluster of several nodes on this machine, for tests: a process of its own that prints the cluster's address.

    python -m tests.servers.ray_nodes 2 FOLDER

Lines on its standard input are orders: `kill` ends the node that was added last, with all its processes, as a machine
that goes out; `add` adds one. Each is answered by a line. It ends with its standard input. Ray's logs and sockets are
in FOLDER, whose path must be short.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path
from typing import Any

from ray.cluster_utils import Cluster  # type: ignore[import-untyped, unused-ignore]

_SMALL: dict[str, Any] = {"num_cpus": 1, "num_gpus": 0, "object_store_memory": 80 * 2**20, "include_dashboard": False}


def main(count: int, folder: str) -> None:
    # Ray writes the address of its newest cluster there, and fails where the folder is not there yet.
    Path(tempfile.gettempdir(), "ray").mkdir(exist_ok=True)
    cluster = Cluster(initialize_head=True, head_node_args={**_SMALL, "temp_dir": folder})
    nodes = [cluster.add_node(**_SMALL) for _ in range(count - 1)]
    print(cluster.address, flush=True)
    for order in sys.stdin:
        if order.strip() == "kill":
            cluster.remove_node(nodes.pop(), allow_graceful=False)
        elif order.strip() == "add":
            nodes.append(cluster.add_node(**_SMALL))
        print(order.strip(), flush=True)
    cluster.shutdown()


if __name__ == "__main__":
    main(int(sys.argv[1]), sys.argv[2])
