"""Decisions about machines, daemons and versions: pure functions and records."""
