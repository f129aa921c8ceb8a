"""Builds on behalf of the coordinator."""
