"""Decisions about the whole cluster: daemons, dataflows, names."""
