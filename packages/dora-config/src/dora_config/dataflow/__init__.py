"""Dataflow files: models, loading, modules, types, checks, placement."""
