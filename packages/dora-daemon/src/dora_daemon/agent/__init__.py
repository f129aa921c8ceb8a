"""The machine agent: one per machine, talks to the coordinator."""
