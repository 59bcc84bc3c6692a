"""Which tickers are not done, and why: a rule over what was fetched, loaded and built."""

import textwrap
from collections.abc import Collection, Iterable, Mapping, Sequence
from datetime import datetime

from stocks_assets.domain.datasets import Call
from stocks_assets.domain.gaps import Gap, describe_lost
from stocks_assets.domain.planner import ANSWERED, Allowance, Want, plan_calls

_REASON_LENGTH = 160


def find_backlog(
    wants: Iterable[Want],
    now: datetime,
    *,
    failed: Mapping[Call, str],
    gaps: Iterable[Gap],
    behind_in_silver: Mapping[str, Sequence[str]],
    lost_bars: Mapping[str, int],
    behind_in_gold: Collection[str],
) -> dict[str, list[str]]:
    """Return each ticker of which something failed or is missing, with all the reasons.

    A call counts that was never made, or that failed and is due again: what the planner leaves
    alone, such as a ticker that the vendor does not know, is left alone here. What is only older
    than it might be is not missing. `failed` has the reasons of failed calls, `gaps` the sessions
    that a call may bring, `behind_in_silver` the tables that lack a ticker's newest objects,
    `lost_bars` how many daily bars are gone that were loaded.
    """
    wants = list(wants)
    last = {want.call: want.last for want in wants}
    asked = {call.ticker for call, checked in last.items() if checked is not None}
    never: dict[str, list[str]] = {}
    found: dict[str, list[str]] = {}
    for call in plan_calls(wants, now, Allowance()).calls:
        checked = last[call]
        what = f"{call.dataset} {call.part}".strip()
        if checked is None:
            never.setdefault(call.ticker, []).append(what)
        elif checked.outcome not in ANSWERED:
            reason = textwrap.shorten(
                failed.get(call, checked.outcome), _REASON_LENGTH, placeholder=" ..."
            )
            found.setdefault(call.ticker, []).append(f"{what} failed: {reason}")
    for ticker, datasets in never.items():
        what = ", ".join(datasets) if ticker in asked else "nothing of it"
        verb = "was" if ticker not in asked or len(datasets) == 1 else "were"
        negation = "never" if ticker in asked else "ever"
        found.setdefault(ticker, []).append(f"{what} {verb} {negation} fetched")
    for gap in gaps:
        found.setdefault(gap.ticker, []).append(gap.describe())
    for ticker, tables in behind_in_silver.items():
        names = ", ".join(f"silver/{table}" for table in tables)
        found.setdefault(ticker, []).append(f"{names} without the newest objects")
    for ticker, count in lost_bars.items():
        found.setdefault(ticker, []).append(describe_lost(count))
    for ticker in behind_in_gold:
        found.setdefault(ticker, []).append("gold is behind silver")
    return found


def choose(
    tickers: Iterable[str],
    backlog: Collection[str],
    behind: Collection[str],
    *,
    called: Collection[str] | None,
    busy: Collection[str],
    is_session: bool,
) -> list[str]:
    """Return those of `tickers` to make good now.

    `behind` are those of the `backlog` that need no call, `called` those that the plan has a call
    for, None where calls are free. `busy` are left to the runs at work. On a day without a session
    nothing starts because it is only due again.
    """

    def is_wanted(ticker: str) -> bool:
        if ticker in busy:
            return False
        if ticker in behind or called is None:
            return ticker in behind or ticker in backlog
        return ticker in called and (is_session or ticker in backlog)

    return [ticker for ticker in tickers if is_wanted(ticker)]
