"""The link process of a dataflow, as its runner sees it."""
