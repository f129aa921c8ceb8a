"""Decisions about one dataflow: placement, links, parts, completion."""
