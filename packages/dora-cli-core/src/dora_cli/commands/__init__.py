"""Commands, one module each; `dora_cli.registry` lists them."""
