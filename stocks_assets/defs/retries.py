"""The one retry policy, for whatever a step is doing when a server goes away for a moment.

- A request to the store: the S3 client tries again, with backoff, for some seconds.
- A call to the vendor: the source does, for what the vendor says may pass; each try counts against
  the budget.
- A step, where PostgreSQL, the store or dbt's connection failed: it is tried again `MAX_RETRIES`
  times, after `_FIRST_WAIT` seconds, then twice as many, and so on. Tickers that the store failed
  for are part of this; once no try is left, they are recorded as failed and the others go on.
- A run whose process is gone: Dagster's daemon starts it again, as often.
- A ticker that failed for a reason of its own: nobody does at once. The schedule `catch_up`,
  `stocks refresh --failed` and *Re-execute from failure* take all of them in one run.

Nothing else is tried again: what failed for another reason would fail again. A step or run that is
tried again asks the vendor for nothing that it was asked for since the run began, but for what the
store did not take; what failed in an earlier try has failed in the run.
"""

import functools
from collections.abc import Callable, Iterator
from typing import Any, ParamSpec

import dagster as dg
from dagster_dbt.errors import DagsterDbtCliRuntimeError

from stocks_assets.adapters.transient import is_transient

MAX_RETRIES = 3
_FIRST_WAIT = 5
# Set on runs that Dagster starts in place of one that failed.
AUTOMATIC = "dagster/retry_number"
# What dbt says of a connection that failed.
_DBT_SAYS = (
    "could not connect",
    "connection refused",
    "connection failed",
    "server closed the connection",
    "connection already closed",
    "terminating connection",
    "the database system is",
    "deadlock detected",
    "could not serialize access",
)

P = ParamSpec("P")


def retried(step: Callable[P, Iterator[Any]]) -> Callable[P, Iterator[Any]]:
    """Return `step`, a generator of events, so that it is tried again where that may help."""

    @functools.wraps(step)
    def attempt(*args: P.args, **kwargs: P.kwargs) -> Iterator[Any]:
        try:
            yield from step(*args, **kwargs)
        except Exception as error:
            if not may_pass(error):
                raise
            context = args[0] if args else kwargs["context"]
            assert isinstance(context, dg.AssetExecutionContext)
            request_retry(context, str(error), cause=error)
            raise

    return attempt


def request_retry(
    context: dg.AssetExecutionContext, reason: str, *, cause: Exception | None = None
) -> None:
    """Have the step tried again in a while; once it was tried too often, return.

    Raises:
        dagster.RetryRequested: Dagster's way to try a step again.
    """
    if context.retry_number >= MAX_RETRIES:
        return
    wait = _FIRST_WAIT * 2**context.retry_number
    context.log.warning(f"tried again in {wait} s: {reason}")
    raise dg.RetryRequested(max_retries=MAX_RETRIES, seconds_to_wait=wait) from cause


def may_pass(error: Exception) -> bool:
    """Tell whether a step that ended with `error` is worth another try."""
    if isinstance(error, dg.Failure):
        return False
    if isinstance(error, DagsterDbtCliRuntimeError):
        said = str(error).lower()
        return any(sign in said for sign in _DBT_SAYS)
    return is_transient(error)


def is_tried_again(context: dg.AssetExecutionContext, error: Exception) -> bool:
    """Tell whether a step that ended with `error` has another try."""
    return may_pass(error) and context.retry_number < MAX_RETRIES


def is_another_try(context: dg.AssetExecutionContext) -> bool:
    """Tell whether the step, or its run, was tried before and is tried again by itself."""
    return context.retry_number > 0 or AUTOMATIC in context.run.tags
