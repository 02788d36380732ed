"""One module for each command; `lmstrix_cli.main.COMMANDS` lists them."""
