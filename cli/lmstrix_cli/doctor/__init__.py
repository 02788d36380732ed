"""What ``lmstrix doctor`` looks at: one small function for each thing that can be wrong.

`findings` says what a check gives; `installed`, `lm_studio`, `places` and `machine` hold the
checks; `examine` runs them. A check loads nothing, changes nothing, and has a deadline.
"""

from lmstrix_cli.doctor.examine import CHECKS, examine
from lmstrix_cli.doctor.findings import Check, Finding, Outcome, Verdict

__all__ = ["CHECKS", "Check", "Finding", "Outcome", "Verdict", "examine"]
