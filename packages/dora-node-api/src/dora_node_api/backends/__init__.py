"""Sources of a node's events: a runner, a test file, a terminal."""
