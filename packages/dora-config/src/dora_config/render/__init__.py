"""Dataflows as diagrams, and JSON Schemas."""
