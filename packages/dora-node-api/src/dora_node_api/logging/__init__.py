"""Structured log lines and the bridge from `logging`."""
