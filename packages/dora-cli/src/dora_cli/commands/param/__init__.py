"""Commands of `dora param`, one module each."""
