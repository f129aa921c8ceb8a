"""Installation of dora on machines: a tree is built here for each platform and sent there."""
