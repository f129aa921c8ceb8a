"""Write a dataflow file in Python; see `dora_node_api.builder`."""

from dora_node_api.builder import DataflowBuilder, Node, Operator, Output

__all__ = ["DataflowBuilder", "Node", "Operator", "Output"]
