"""Runner processes of this daemon, and the connection to each."""
