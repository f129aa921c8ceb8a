"""Recordings: the recorder process, the format of the files, and the players of a replay."""
