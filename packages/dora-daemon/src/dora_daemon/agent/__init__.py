"""The agent of one machine: runs the parts of dataflows that the coordinator gives it."""
