"""Topic streams and their rates."""
