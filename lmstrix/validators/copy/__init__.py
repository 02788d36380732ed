"""Copy: can the model still go on with a passage of its prompt, word by word?

`passages` chooses what is to be copied, `scoring` grades a reply, `questions` asks.
"""

from lmstrix.validators.copy.scoring import PASS_SCORE, copy_score
from lmstrix.validators.copy.validator import Copy

__all__ = ["PASS_SCORE", "Copy", "copy_score"]
