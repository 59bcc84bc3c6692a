"""What is too old: a rule over the newest bars, the last answers, and the exchange's calendar."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime, timedelta

from stocks_assets.domain.datasets import DATASETS, Call
from stocks_assets.domain.gaps import Expectation, Holding, Place
from stocks_assets.domain.planner import Checked

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
    tickers: Iterable[str], newest: Mapping[str, date], expected: Expectation, what: str
) -> list[Stale]:
    """Return those of `tickers` that lack bars of the newest sessions that they should have.

    `newest` has the date of the last bar of each; a ticker without any is stale.
    """
    found = []
    for ticker in tickers:
        last = newest.get(ticker)
        if last is None:
            found.append(Stale(ticker, what, None))
            continue
        gaps = expected.gaps(Holding(ticker, last, last, 1))
        found += [
            Stale(ticker, what, last, gap.sessions) for gap in gaps if gap.place is Place.AFTER
        ]
    return found


def stale_answers(
    calls: Iterable[Call],
    fetches: Mapping[Call, Checked],
    delisted: Mapping[str, date],
    now: datetime,
) -> list[Stale]:
    """Return those of `calls` whose last answer is older than its dataset may be, with some grace.

    What was never asked for is left to the backlog, and so is what is listed no more.
    """
    found = []
    for call in calls:
        checked = fetches.get(call)
        if checked is None or call.ticker in delisted:
            continue
        answered = checked.at if checked.outcome in ("Data", "Unavailable") else checked.had_at
        if answered is None or now - answered > DATASETS[call.dataset].refresh_after + _GRACE:
            found.append(Stale(call.ticker, call.dataset, answered.date() if answered else None))
    return found


def oldest_first(stale: Iterable[Stale]) -> Sequence[Stale]:
    """Return them with the worst first."""
    return sorted(stale, key=lambda one: (one.since or date.min, one.ticker))
