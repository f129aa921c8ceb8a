"""Commands about this installation of dora."""
