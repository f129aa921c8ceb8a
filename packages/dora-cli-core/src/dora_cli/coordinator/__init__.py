"""Client of the coordinator, and options of commands that use it."""
