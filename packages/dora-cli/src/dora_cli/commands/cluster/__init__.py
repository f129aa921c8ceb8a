"""Commands of `dora cluster`, one module each."""
