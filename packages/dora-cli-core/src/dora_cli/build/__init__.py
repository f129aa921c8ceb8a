"""Builds on this machine and on daemons, and their progress."""
