"""Commands of `dora node`, one module each."""
