"""Commands that use a coordinator."""
