"""Processes of nodes: preparation, start, supervision, end."""
