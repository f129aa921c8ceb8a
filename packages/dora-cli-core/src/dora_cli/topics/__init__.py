"""Watched outputs: their messages and rates."""
