"""Dataflows as pages, diagrams and JSON Schemas."""
