"""One command, one file: ask the domain, report, exit. Listed in `dora_cli.registry`."""
