"""A fleet from one machine: what `dora cluster` does, command by command."""
