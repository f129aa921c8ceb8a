"""The link process: messages of one dataflow between this machine and the others.

`messages` is what the runner and the link tell each other; everything else is the link's own.
"""
