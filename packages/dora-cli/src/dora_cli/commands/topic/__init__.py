"""Commands of `dora topic`, one module each."""
