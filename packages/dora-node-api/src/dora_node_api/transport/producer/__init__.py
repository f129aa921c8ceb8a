"""The sending side: blocks, pool, routes."""
