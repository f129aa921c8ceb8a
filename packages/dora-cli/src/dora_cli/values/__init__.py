"""Values of options: durations, times, variables; files written whole."""
