"""What is too old: a rule over the newest bars, the last answers, and the exchange's calendar."""

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime, timedelta

from stocks_assets.domain.datasets import DATASETS, Call
from stocks_assets.domain.gaps import Expectation, Holding, Place, can_be_filled
from stocks_assets.domain.planner import ANSWERED, UNKNOWN, Checked

# What is asked for late may be so for a weekend, a holiday and a day of scarce calls.
_GRACE = timedelta(days=4)


@dataclass(frozen=True, slots=True)
class Stale:
    """A ticker whose newest bar, or last answer, is too old.

    `since` is the day of it; None where there is nothing. `sessions` counts those that passed since
    then, and is None for what does not follow sessions.
    """

    ticker: str
    what: str
    since: date | None
    sessions: int | None = None


def stale_bars(
    tickers: Iterable[str],
    newest: Mapping[str, date],
    expected: Expectation,
    what: str,
    *,
    answers: Mapping[str, Checked],
    behind: Collection[str],
) -> list[Stale]:
    """Return those of `tickers` that lack bars of the newest sessions, and might have them.

    `newest` has the date of the last bar of each; a ticker without any is stale. `answers` are what
    came of the last calls for daily bars: what the vendor does not know, or did not have when it
    had had time, makes nothing stale. `behind` are tickers of which the layer before has more.
    """
    found = []
    for ticker in tickers:
        last, answer = newest.get(ticker), answers.get(ticker)
        if answer is not None and answer.outcome == UNKNOWN and ticker not in behind:
            continue
        if last is None:
            if ticker in behind or answer is None or answer.outcome != "Unavailable":
                found.append(Stale(ticker, what, None))
            continue
        gaps = expected.gaps(Holding(ticker, last, last, 1))
        found += [
            Stale(ticker, what, last, gap.sessions)
            for gap in gaps
            if gap.place is Place.AFTER and (ticker in behind or can_be_filled(gap, answer))
        ]
    return found


def stale_answers(
    calls: Iterable[Call],
    fetches: Mapping[Call, Checked],
    delisted: Mapping[str, date],
    now: datetime,
) -> list[Stale]:
    """Return those of `calls` whose last answer is older than its dataset may be, with some grace.

    What was never asked for is left to the backlog; what is listed no more, or the vendor does not
    know, is left alone.
    """
    found = []
    for call in calls:
        checked = fetches.get(call)
        if checked is None or checked.outcome == UNKNOWN or call.ticker in delisted:
            continue
        answered = checked.at if checked.outcome in ANSWERED else checked.had_at
        if answered is None or now - answered > DATASETS[call.dataset].refresh_after + _GRACE:
            found.append(Stale(call.ticker, call.dataset, answered.date() if answered else None))
    return found


def oldest_first(stale: Iterable[Stale]) -> Sequence[Stale]:
    """Return them with the worst first."""
    return sorted(stale, key=lambda one: (one.since or date.min, one.ticker))
