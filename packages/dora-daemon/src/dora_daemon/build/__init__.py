"""Prepares nodes: git sources, build commands, lock file."""
