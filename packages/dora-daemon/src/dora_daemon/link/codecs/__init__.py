"""Codecs of `compress:`, for messages between machines."""
