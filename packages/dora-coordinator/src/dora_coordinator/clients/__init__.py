"""Decisions about requests of clients: queries, starts and stops, builds, streams; no I/O."""
