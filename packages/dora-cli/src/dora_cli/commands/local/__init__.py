"""Commands that need no coordinator."""
