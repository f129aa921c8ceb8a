"""The commands of `dora cluster`, and `dora self wheels`."""
