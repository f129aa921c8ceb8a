"""Layouts, memory and queues that both sides use."""
