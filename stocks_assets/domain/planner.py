"""Which calls to make next when calls are scarce: a rule over what is stored and how old it is."""

import math
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum

from stocks_assets.domain.calendar import last_closed_session
from stocks_assets.domain.datasets import DATASETS, Dataset

# What was never fetched is as urgent as what has missed so many of its turns.
_NEVER = 30.0


class Priority(StrEnum):
    """How much a ticker matters to its owner."""

    HIGH = "high"
    NORMAL = "normal"
    LOW = "low"


_RANKS = {Priority.HIGH: 0, Priority.NORMAL: 1, Priority.LOW: 2}

_UNKNOWN = "UnknownSymbol"
# A ticker that the vendor does not know, or an endpoint that the key may not use, is asked for
# again after so long; all else that failed is asked for again at once.
_RETRY_AFTER = {
    _UNKNOWN: timedelta(days=7),
    "PremiumOnly": timedelta(days=30),
    "Unavailable": timedelta(days=30),
}


@dataclass(frozen=True, slots=True)
class Checked:
    """When a dataset of a ticker was last asked for, and the kind of outcome, such as `Data`."""

    at: datetime
    outcome: str


@dataclass(frozen=True, slots=True)
class Want:
    """A dataset of a ticker that is to be kept up to date."""

    dataset: str
    ticker: str
    priority: Priority
    last: Checked | None


@dataclass(frozen=True, slots=True)
class Allowance:
    """The calls left in the day's window, how many a day has, and when the next one frees.

    `left` is None where calls are not limited by the day.
    """

    left: int | None = None
    per_day: int | None = None
    frees_at: datetime | None = None


@dataclass(frozen=True, slots=True)
class Plan:
    """The calls to make now in order, those that have to wait, and when the last will be made.

    A call is (dataset, ticker). `fresh` counts what needs no call yet.
    """

    allowance: Allowance
    calls: tuple[tuple[str, str], ...]
    waiting: tuple[tuple[str, str], ...]
    fresh: int
    done_by: datetime | None

    def describe(self) -> str:
        """Return the plan in one line."""
        line = f"{len(self.calls)} calls now, {self.fresh} datasets are still fresh"
        if not self.waiting or self.done_by is None:
            return line
        by = f"{self.done_by:%Y-%m-%d %H:%M} UTC"
        if self.calls or self.allowance.frees_at is None:
            return f"{line}, {len(self.waiting)} wait; the last of them is done by {by}"
        back = f"{self.allowance.frees_at:%Y-%m-%d %H:%M} UTC"
        return f"no call is left before {back}; {len(self.waiting)} wait, the last until {by}"

    def tickers(self, dataset: str) -> list[str]:
        """Return the tickers to ask for `dataset` now, the most urgent first."""
        return [ticker for name, ticker in self.calls if name == dataset]


def is_due(dataset: Dataset, last: Checked | None, now: datetime) -> bool:
    """Tell whether `dataset` may have something new since it was `last` asked for."""
    if last is None:
        return True
    if last.outcome != "Data":
        return now - last.at >= _RETRY_AFTER.get(last.outcome, timedelta(0))
    if now - last.at < dataset.refresh_after:
        return False
    return not dataset.follows_sessions or last_closed_session(now) > last_closed_session(last.at)


def plan_calls(wants: Iterable[Want], now: datetime, allowance: Allowance) -> Plan:
    """Return what to call for now and what has to wait.

    Tickers of higher priority go first; within a priority, what has missed most of its turns;
    then datasets in the order of the registry.
    """
    wants = list(wants)
    # One refusal speaks for the ticker: its other datasets would be refused alike.
    unknown = {
        want.ticker
        for want in wants
        if want.last
        and want.last.outcome == _UNKNOWN
        and not is_due(DATASETS[want.dataset], want.last, now)
    }
    due = [
        want
        for want in wants
        if want.ticker not in unknown and is_due(DATASETS[want.dataset], want.last, now)
    ]
    order = {name: position for position, name in enumerate(DATASETS)}
    due.sort(
        key=lambda want: (
            _RANKS[want.priority],
            -_turns_missed(want, now),
            order[want.dataset],
            want.ticker,
        )
    )
    calls = tuple((want.dataset, want.ticker) for want in due)
    left = len(calls) if allowance.left is None else min(allowance.left, len(calls))
    fresh = len(wants) - len(due)
    return Plan(allowance, calls[:left], calls[left:], fresh, _done_by(calls, now, allowance))


def _turns_missed(want: Want, now: datetime) -> float:
    if want.last is None:
        return _NEVER
    turns = (now - want.last.at) / DATASETS[want.dataset].refresh_after
    return float(math.floor(min(turns, _NEVER)))


def _done_by(
    calls: tuple[tuple[str, str], ...], now: datetime, allowance: Allowance
) -> datetime | None:
    """Return when the last call can be made; None where nothing but time limits it."""
    if allowance.left is None or not allowance.per_day:
        return now
    over = len(calls) - allowance.left
    if over <= 0:
        return now
    first = allowance.frees_at or now + timedelta(days=1)
    return first + timedelta(days=math.ceil(over / allowance.per_day) - 1)
