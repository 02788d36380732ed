"""The `lmstrix` command: words to one public call, events to a terminal, errors to exit codes."""
