"""dora for machines that have none: a tree made here for a platform, put there, switched to."""
