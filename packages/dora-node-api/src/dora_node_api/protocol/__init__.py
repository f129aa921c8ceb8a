"""The control protocol between node and runner."""
