"""Requests that the coordinator answers from its state or by daemons; each is a coroutine."""
