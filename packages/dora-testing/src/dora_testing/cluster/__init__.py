"""A fleet in one process, for tests: simulated machines, network and clock."""
