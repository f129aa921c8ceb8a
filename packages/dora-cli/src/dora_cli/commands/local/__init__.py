"""Commands that work on this machine alone, or may: `run`, `build`, `logs`."""
