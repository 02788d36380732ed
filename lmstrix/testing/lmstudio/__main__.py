"""``python -m lmstrix.testing.lmstudio``: a stand-in LM Studio for one GGUF file."""

from lmstrix.testing.lmstudio import LMStudioServer
from lmstrix.testing.serving import command

DEFAULT_PORT = 41343
"""The first port at which SDKs look for LM Studio."""

if __name__ == "__main__":
    raise SystemExit(command(LMStudioServer, "lmstudio", "LM Studio", DEFAULT_PORT))
