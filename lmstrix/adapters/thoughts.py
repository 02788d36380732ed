"""The old name of a part of `lmstrix.adapters.streaming`, until LM Studio's adapter uses that."""

from lmstrix.adapters.streaming import ThoughtSplitter, ends_in_thought, with_answer_prefix

__all__ = ["ThoughtSplitter", "ends_in_thought", "with_answer_prefix"]
