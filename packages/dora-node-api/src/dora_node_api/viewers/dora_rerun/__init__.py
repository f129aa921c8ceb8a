"""In place of the package of that name, which is compiled against dora-rs.

The runner puts it first on the import path of nodes, so that the script `dora-rerun` of the
replaced package starts this node too.
"""

from __future__ import annotations

from dora_node_api.viewers.rerun_node import main as py_main

__all__ = ["py_main"]
