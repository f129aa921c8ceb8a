"""Prepares nodes before they run: sources, Python environments, build lines, lock file."""
