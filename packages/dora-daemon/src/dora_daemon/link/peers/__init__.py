"""Connections to other machines' links, and which streams belong to which."""
