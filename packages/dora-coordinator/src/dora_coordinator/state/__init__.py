"""Vocabulary of the state machine: events, commands, stored records, daemons; no I/O."""
