"""Test a node without a dataflow; see `dora_node_api.testing`."""

from dora_node_api.testing import MockNode

__all__ = ["MockNode"]
