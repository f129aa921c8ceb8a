"""Cluster files: models and loading."""
