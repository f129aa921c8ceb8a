"""Measures this project and its peer side by side with the same node files."""
