"""A plug-in for dora: a command, a node and an export format."""
