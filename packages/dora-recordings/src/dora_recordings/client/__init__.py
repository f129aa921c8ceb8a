"""Recordings: the recorder process and the tables that commands print."""
