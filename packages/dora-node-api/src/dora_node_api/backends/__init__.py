"""Where a node gets its events: a runner, a test file, a terminal."""
