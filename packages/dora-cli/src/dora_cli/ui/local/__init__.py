"""Runs of `dora run` on this computer, without a coordinator."""
