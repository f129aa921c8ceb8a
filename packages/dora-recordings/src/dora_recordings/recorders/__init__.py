"""Recordings of a cluster on this machine: their folders, recorder processes and clock samples."""
