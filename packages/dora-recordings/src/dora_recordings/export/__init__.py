"""Exports of recordings to formats of other tools."""
