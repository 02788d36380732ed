"""Records what a model writes behind a document of each length, as JSON lines.

    python benchmarks/record_texts.py MODEL.gguf OUT.jsonl --seed 1 512 1024 ...

Label the lines by hand: add a `kind`.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

import anyio
import attrs

from lmstrix.adapters.llamacpp import LlamaCppAdapter
from lmstrix.models import Prompt, StopReason
from lmstrix.validators.haystack import PLAIN, Haystack

REPLY_TOKENS = 96
REQUESTS = {
    "garden": ("Explain at length why people like to work in a garden.", "People like"),
    "letter": ("Write a long letter to a friend about a walk.", "Dear friend,\n\nYesterday I"),
    "story": ("Write a long story about a boy and a boat.", "Once upon a time, there was a"),
    "continue": ("Continue the text above with ten more sentences.", ""),
    "town": ("Write a long description of the town in this text.", "The town"),
    "sea": ("Explain in several sentences how rain forms.", ""),
    "bread": ("Explain to a child, in several paragraphs, how bread is made.", "Bread is made"),
    "opinion": ("What do you think of this text? Write several paragraphs.", "I think that"),
    "morning": ("Tell me about a morning in a village.", "It was early in the morning, and"),
    "summary": ("Write a long summary of this text.", ""),
}


@attrs.frozen
class Frame:
    """A request behind a document."""

    request: str
    start: str

    def __call__(self, document: str) -> Prompt:
        """The request behind `document`."""
        return Prompt(user=f"{document}\n\n{self.request}", answer_prefix=self.start)


async def record(arguments: argparse.Namespace) -> None:
    """Climb through the lengths on one document, so that each token is read once."""
    adapter = LlamaCppAdapter(threads=1)
    model = await adapter.find_model(str(arguments.model))
    frames = {name: Frame(*request) for name, request in REQUESTS.items()}
    out = await anyio.open_file(arguments.out, "a", encoding="utf-8")
    async with out, adapter.load(model, max(arguments.lengths)) as loaded:
        haystack = Haystack(
            loaded, arguments.seed, PLAIN, frames=[*frames.values()], reply_tokens=REPLY_TOKENS
        )
        for length in arguments.lengths:
            cut = await haystack.cut(length)
            for name, frame in frames.items():
                reply = await loaded.complete(frame(cut.text), max_tokens=REPLY_TOKENS)
                ended = reply.stop_reason is StopReason.END
                line = {"wording": name, "length": length, "ended": ended, "text": reply.text}
                await out.write(json.dumps(line, ensure_ascii=False) + "\n")
            sys.stderr.write(f"{length}\n")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Record a model's free writing.")
    parser.add_argument("model", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("lengths", type=int, nargs="+")
    parser.add_argument("--seed", type=int, default=1)
    anyio.run(record, parser.parse_args())
