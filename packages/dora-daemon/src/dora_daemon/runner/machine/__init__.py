"""Decisions of a runner: the state of its dataflow, nodes and link."""
