"""Nodes that show their inputs in Rerun and Foxglove. Their libraries are optional."""
