"""Commands that send requests to a coordinator."""
