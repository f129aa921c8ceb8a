"""The commands of `dora cluster`, one module for each."""
