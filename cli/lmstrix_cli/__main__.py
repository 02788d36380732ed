"""``python -m lmstrix_cli``."""

from lmstrix_cli.main import main

if __name__ == "__main__":
    main()
