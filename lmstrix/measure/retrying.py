"""The retry policy, put to work: new attempts for trouble that says nothing about a model."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TypeVar

import anyio
import tenacity

from lmstrix.measure.options import RetryPolicy

__all__ = ["with_retries"]

T = TypeVar("T")


async def with_retries(
    policy: RetryPolicy,
    attempt: Callable[[], Awaitable[T]],
    *,
    on: tuple[type[Exception], ...],
    announce: Callable[[int, str], None],
) -> T:
    """The result of `attempt`, tried again on the errors named in `on`.

    `announce` hears the number of the attempt that comes next, and why. The last attempt's
    error propagates.
    """

    def before_sleep(state: tenacity.RetryCallState) -> None:
        error = state.outcome.exception() if state.outcome else None
        announce(state.attempt_number + 1, str(error))

    retrying = tenacity.AsyncRetrying(
        retry=tenacity.retry_if_exception_type(on),
        stop=tenacity.stop_after_attempt(policy.attempts),
        wait=tenacity.wait_exponential(multiplier=policy.first_wait_s, max=policy.longest_wait_s)
        + tenacity.wait_random(0, policy.first_wait_s),
        sleep=anyio.sleep,
        before_sleep=before_sleep,
        reraise=True,
    )

    async def once() -> T:  # tenacity tells coroutine functions by their type
        return await attempt()

    return await retrying(once)
