"""``python -m lmstrix``: the command line, if it is installed."""

import sys

try:
    from lmstrix_cli.main import main
except ModuleNotFoundError as error:
    if not (error.name or "").startswith("lmstrix_cli"):
        raise
    sys.exit(
        "The command line of LMStrix is not installed here: pip install . in a checkout,"
        ' pip install "lmstrix>=2.0.0a1" after a release.'
    )

if __name__ == "__main__":
    main()
