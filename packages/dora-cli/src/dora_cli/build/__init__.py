"""Builds on this machine and on daemons."""
