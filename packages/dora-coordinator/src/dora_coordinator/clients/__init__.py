"""Decisions about requests of clients: queries, builds, streams."""
