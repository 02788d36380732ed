"""Records what a model writes freely after a document of each length, as JSON lines.

    python tests/validators/coherence/data/record.py MODEL.gguf OUT.jsonl --seed 1 512 1024 ...

One line for each length and wording: what was asked, what was written, and why it ended.
``model.jsonl`` is made of such lines, with a kind that was given by hand, and ``unclear`` where
none could be. Its `source` tells which were written with a wrong rotary base (`gguf-set-metadata`),
which breaks the model at 512 tokens in the ways that it breaks in beyond its limit.
"""

from __future__ import annotations

import argparse
import json
import sys
from itertools import islice
from pathlib import Path

import anyio

from lmstrix.adapters.llamacpp import LlamaCppAdapter
from lmstrix.models import Prompt
from lmstrix.ports import LoadedModel
from lmstrix.validators.haystack import filler_sentences

REPLY_TOKENS = 96
WORDINGS = (
    ("garden", "Explain at length why people like to work in a garden.", "People like"),
    ("letter", "Write a long letter to a friend about a walk.", "Dear friend,\n\nYesterday I"),
    ("story", "Write a long story about a boy and a boat.", "Once upon a time, there was a"),
    ("describe", "Describe in several sentences what the people in this text do.", "In this text,"),
    ("continue", "Continue the text above with ten more sentences.", ""),
    ("town", "Write a long description of the town in this text.", "The town"),
    ("sea", "Explain in several sentences how rain forms.", ""),
    ("bread", "Explain to a child, in several paragraphs, how bread is made.", "Bread is made"),
    ("opinion", "What do you think of this text? Write several paragraphs.", "I think that"),
    ("morning", "Tell me about a morning in a village.", "It was early in the morning, and"),
    ("question", "What is the most important thing in this text, and why?", ""),
    ("summary", "Write a long summary of this text.", ""),
)


async def document(loaded: LoadedModel, seed: int, tokens: int) -> str:
    """The first sentences of the filler, up to `tokens`."""
    sentences = list(islice(filler_sentences(seed), tokens // 8))
    low, high = 0, len(sentences)
    while low < high:
        middle = (low + high + 1) // 2
        if await loaded.count_tokens(" ".join(sentences[:middle])) <= tokens:
            low = middle
        else:
            high = middle - 1
    return " ".join(sentences[:low])


async def record(arguments: argparse.Namespace) -> None:
    """Climb through the lengths on one document, so that each token is read once."""
    adapter = LlamaCppAdapter(threads=1)
    model = await adapter.find_model(str(arguments.model))
    longest = max(arguments.lengths) + REPLY_TOKENS
    with arguments.out.open("a", encoding="utf-8") as out:
        async with adapter.load(model, longest + 256) as loaded:
            for length in arguments.lengths:
                text = await document(loaded, arguments.seed, length - REPLY_TOKENS - 80)
                for name, ask, prefix in WORDINGS[: arguments.wordings]:
                    prompt = Prompt(user=f"{text}\n\n{ask}", answer_prefix=prefix)
                    reply = await loaded.complete(prompt, max_tokens=REPLY_TOKENS)
                    line = {
                        "source": "SmolLM2-135M-Instruct Q4_1",
                        "length": length,
                        "seed": arguments.seed,
                        "wording": name,
                        "stop": reply.stop_reason.value,
                        "tokens": reply.generated_tokens,
                        "text": reply.text,
                    }
                    out.write(json.dumps(line, ensure_ascii=False) + "\n")
                    out.flush()
                sys.stderr.write(f"seed {arguments.seed}: {length}\n")


def main() -> None:
    """Parse the command line and record."""
    parser = argparse.ArgumentParser(description="Record a model's free writing.")
    parser.add_argument("model", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("lengths", type=int, nargs="+")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--wordings", type=int, default=len(WORDINGS))
    anyio.run(record, parser.parse_args())


if __name__ == "__main__":
    main()
