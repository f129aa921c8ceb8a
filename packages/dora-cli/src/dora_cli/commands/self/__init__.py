"""Commands of `dora self`, one module each."""
