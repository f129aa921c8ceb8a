"""Code that is sent to this machine: fetched, kept by its content, laid out where nodes run."""
