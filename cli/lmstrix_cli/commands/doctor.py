"""``lmstrix doctor``: is everything in place, and what to do where it is not?"""

from __future__ import annotations

import json
import shutil
import textwrap
from collections.abc import Iterator, Sequence

import click

from lmstrix.converter import to_json
from lmstrix_cli import safe_text, session
from lmstrix_cli.doctor import Finding, Verdict, examine
from lmstrix_cli.exit_codes import ExitCode
from lmstrix_cli.running import run_async
from lmstrix_cli.settings import Settings, pass_settings

__all__ = ["command"]

EPILOG = """\b
Examples:
  lmstrix doctor
  lmstrix --host 192.168.1.5:1234 doctor
  lmstrix doctor --json
"""

WIDEST = 100


@click.command(name="doctor", epilog=EPILOG)
@click.option("--json", "as_json", is_flag=True, help="One JSON object.")
@click.pass_context
@pass_settings
def command(settings: Settings, ctx: click.Context, *, as_json: bool) -> None:
    """Check everything that LMStrix needs, and say how to mend it.

    Nothing is loaded and nothing is changed. Ends with exit code 0 where there is no problem,
    else with 1; a warning is about something that not everybody needs.
    """
    session.open_client(settings)  # options that cannot work are wrong usage, as everywhere
    findings = run_async(lambda: examine(settings))
    if as_json:
        safe_text.json_line(_as_json(findings))
    else:
        safe_text.out("\n".join(_lines(findings)))
    if _count(findings, Verdict.PROBLEM):
        ctx.exit(ExitCode.OTHER)


def _as_json(findings: Sequence[Finding]) -> str:
    document = {
        "checks": [json.loads(to_json(finding)) for finding in findings],
        "problems": _count(findings, Verdict.PROBLEM),
        "warnings": _count(findings, Verdict.WARNING),
    }
    return json.dumps(document, ensure_ascii=False)


def _lines(findings: Sequence[Finding]) -> Iterator[str]:
    width = min(WIDEST, shutil.get_terminal_size().columns)
    verdicts = max(len(verdict) for verdict in Verdict)
    names = max(len(finding.check) for finding in findings)
    for finding in findings:
        head = f"{finding.verdict.ljust(verdicts)}  {finding.check.ljust(names)}  "
        yield from _wrapped(head, finding.found, width)
        if finding.advice:
            yield from _wrapped(" " * len(head), f"-> {finding.advice}", width)
    problems, warnings = (
        _count(findings, verdict) for verdict in (Verdict.PROBLEM, Verdict.WARNING)
    )
    yield ""
    yield f"{_many(problems, 'problem')}, {_many(warnings, 'warning')}."


def _wrapped(head: str, text: str, width: int) -> list[str]:
    """`text` beside `head`, where there is room for that."""
    room = max(20, width - len(head))
    pieces = textwrap.wrap(
        safe_text.label(text), room, break_on_hyphens=False, break_long_words=False
    )
    blank = " " * len(head)
    return [f"{head if at == 0 else blank}{piece}" for at, piece in enumerate(pieces)]


def _many(count: int, what: str) -> str:
    return f"1 {what}" if count == 1 else f"{count or 'no'} {what}s"


def _count(findings: Sequence[Finding], verdict: Verdict) -> int:
    return sum(finding.verdict is verdict for finding in findings)
