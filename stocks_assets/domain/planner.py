"""Which calls to make next when calls are scarce: a rule over what is stored and how old it is."""

import math
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from enum import StrEnum

from stocks_assets.domain.calendar import last_closed_session, month_is_over
from stocks_assets.domain.datasets import DATASETS, Call

# A call that has failed so often in a row waits its turn like the others.
_MANY_FAILURES = 3


class Priority(StrEnum):
    """How much a ticker matters to its owner."""

    HIGH = "high"
    NORMAL = "normal"
    LOW = "low"


_RANKS = {Priority.HIGH: 0, Priority.NORMAL: 1, Priority.LOW: 2}

# The vendor has the last session of a month some hours after its close.
_SETTLES_AFTER = timedelta(days=1)
# It may answer by mistake that it has nothing of a month.
_MISSING_MONTH = timedelta(days=30)

ANSWERED = ("Data", "Unavailable")
"""The kinds of outcome after which there is nothing to make good."""
UNKNOWN = "UnknownSymbol"
"""The kind of outcome of a ticker that the vendor does not know."""
# A ticker that the vendor does not know, or an endpoint that the key may not use, is asked for
# again after so long; all else that failed is asked for again at once. What was not available may
# have come when the dataset is due again. A ticker that may be new is asked for after each session.
_RETRY_AFTER = {
    UNKNOWN: timedelta(days=7),
    "PremiumOnly": timedelta(days=1),
}


# So long the vendor may take to know a security that is listed. A ticker that it has never known
# may be too new for the list of securities as well, which comes once in five sessions.
_NEW_FOR = timedelta(days=30)
_NEW_REFUSALS = 5


@dataclass(frozen=True, slots=True)
class Checked:
    """When a call was last made, and the kind of outcome, such as `Data`.

    `had_at` is when it last was answered, `whole_at` when with more than the newest rows, and
    `failures` how often it has failed since.
    """

    at: datetime
    outcome: str
    had_at: datetime | None = None
    failures: int = 0
    whole_at: datetime | None = None


@dataclass(frozen=True, slots=True)
class Want:
    """A call whose data is to be kept up to date.

    `delisted_on` is the last day on which the ticker could have traded, where that is known, and
    `listed_on` the first day of the listing that it has now.
    `is_lacking` tells that sessions are missing, or a split, that the last answer came too early to
    have.
    """

    call: Call
    priority: Priority
    last: Checked | None
    delisted_on: date | None = None
    listed_on: date | None = None
    is_lacking: bool = False


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

    `fresh` counts what needs no call yet.
    """

    allowance: Allowance
    calls: tuple[Call, ...]
    waiting: tuple[Call, ...]
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

    def of(self, dataset: str) -> list[Call]:
        """Return the calls of `dataset` to make now, the most urgent first."""
        return [call for call in self.calls if call.dataset == dataset]


def is_due(want: Want, now: datetime) -> bool:
    """Tell whether the call may bring something new since it was last made."""
    dataset, last = DATASETS[want.call.dataset], want.last
    if last is None:
        return True
    if last.outcome not in ANSWERED:
        return _is_due_again(want, last, now)
    if want.is_lacking or now - last.at < dataset.refresh_after:
        return want.is_lacking
    if dataset.is_monthly and month_is_over(want.call.part, last.at - _SETTLES_AFTER):
        return last.outcome == "Unavailable" and now - last.at >= _MISSING_MONTH
    # A week of grace: the vendor's last words on a security may come late.
    if want.delisted_on is not None and last.at.date() > want.delisted_on + timedelta(days=7):
        return False
    return not dataset.follows_sessions or last_closed_session(now) > last_closed_session(last.at)


def _is_due_again(want: Want, last: Checked, now: datetime) -> bool:
    """Tell whether what was refused, or failed, may be had by now."""
    if last.outcome == UNKNOWN and _may_be_new(want, last, now):
        return last_closed_session(now) > last_closed_session(last.at)
    return now - last.at >= _RETRY_AFTER.get(last.outcome, timedelta(0))


def _may_be_new(want: Want, last: Checked, now: datetime) -> bool:
    """Tell whether the ticker that the vendor does not know was listed, or added, lately."""
    if want.listed_on is not None and now.date() - want.listed_on <= _NEW_FOR:
        return True
    return last.had_at is None and last.failures <= _NEW_REFUSALS


def plan_calls(wants: Iterable[Want], now: datetime, allowance: Allowance) -> Plan:
    """Return what to call for now and what has to wait.

    Tickers of higher priority go first; within a priority, what there is nothing of yet, in the
    order of the registry; then what is oldest, whatever it is, so that each gets its turn.
    """
    wants = list(wants)
    # One refusal speaks for the ticker, if nothing speaks against it: its other datasets would be
    # refused alike.
    known = {want.call.ticker for want in wants if want.last and _had_at(want.last)}
    unknown = {
        want.call.ticker
        for want in wants
        if want.last
        and want.last.outcome == UNKNOWN
        and want.call.ticker not in known
        and not is_due(want, now)
    }
    due = [want for want in wants if want.call.ticker not in unknown and is_due(want, now)]
    order = {name: position for position, name in enumerate(DATASETS)}
    due.sort(
        key=lambda want: (
            _RANKS[want.priority],
            _age(want.last),
            order[want.call.dataset],
            want.call.ticker,
            # The newest month first.
            -_month_number(want.call.part),
            want.call.part,
        )
    )
    calls = tuple(want.call for want in due)
    left = len(calls) if allowance.left is None else min(allowance.left, len(calls))
    fresh = len(wants) - len(due)
    return Plan(allowance, calls[:left], calls[left:], fresh, _done_by(calls, now, allowance))


def _age(last: Checked | None) -> float:
    """Return since when there is nothing newer, in seconds; minus infinity is nothing at all."""
    if last is None:
        return -math.inf
    if last.failures >= _MANY_FAILURES:
        return last.at.timestamp()
    had_at = _had_at(last)
    return had_at.timestamp() if had_at else -math.inf


def _had_at(last: Checked) -> datetime | None:
    return last.at if last.outcome == "Data" else last.had_at


def _month_number(part: str) -> int:
    return int(part.replace("-", "")) if part[:1].isdigit() else 0


def _done_by(calls: tuple[Call, ...], now: datetime, allowance: Allowance) -> datetime | None:
    """Return when the last call can be made; None where nothing but time limits it."""
    if allowance.left is None or not allowance.per_day:
        return now
    over = len(calls) - allowance.left
    if over <= 0:
        return now
    first = allowance.frees_at or now + timedelta(days=1)
    return first + timedelta(days=math.ceil(over / allowance.per_day) - 1)
