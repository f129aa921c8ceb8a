"""The nodes `dora-rerun` and `dora-foxglove`.

Nodes also find this package as `dora_rerun`, in the place of the one that is compiled against
dora-rs, so that the script `dora-rerun` of that package starts this node. So modules here import
each other by relative names.
"""

from __future__ import annotations


def py_main() -> None:
    """Run the node `dora-rerun`; the function has the name that it has in the replaced package."""
    from .rerun_node import main

    main()
