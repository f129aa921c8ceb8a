"""Calls to the coordinator and what commands share about them."""
