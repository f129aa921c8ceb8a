"""Measures this project and dora-rs with the same node files."""
