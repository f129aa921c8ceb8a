"""Requests that change nothing in the coordinator; each ends with its client."""
