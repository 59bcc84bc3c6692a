"""The calls that a key has, counted by all processes that share a database.

pyrate-limiter keeps the calls in PostgreSQL: a sliding window for each rate, checked and written
under a lock. What it cannot know, that the vendor itself says the day is spent (the key may serve
elsewhere too), is kept beside it.
"""

import hashlib
import random
import threading
import time
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Self

from psycopg.sql import SQL, Identifier
from psycopg_pool import ConnectionPool
from pyrate_limiter import Duration, PostgresBucket, Rate, RateItem

from stocks_assets.adapters.warehouse import Warehouse
from stocks_assets.domain.planner import Allowance

# The vendor does not publish when its day ends. After it says that the day is spent, one call is
# risked again after so long.
_PAUSE = timedelta(hours=1)
_DAY_MS = int(Duration.DAY)
# A call of the day's window that frees so soon is waited for: what was called for over some minutes
# of yesterday frees over as many minutes of today.
_SOON = timedelta(minutes=15)


@dataclass(frozen=True, slots=True)
class Rates:
    """Calls per second, minute and sliding day; None is no limit."""

    per_second: int | None = None
    per_minute: int | None = None
    per_day: int | None = None

    def as_list(self) -> list[Rate]:
        """Return the limits that bind, the shortest window first; an implied one does not."""
        limits = (
            (self.per_second, Duration.SECOND),
            (self.per_minute, Duration.MINUTE),
            (self.per_day, Duration.DAY),
        )
        rates = [Rate(limit, int(window)) for limit, window in limits if limit is not None]
        return [rate for rate in rates if not any(_implies(other, rate) for other in rates)]


def _implies(one: Rate, other: Rate) -> bool:
    """Tell whether who keeps to `one` keeps to `other` as well."""
    if one.interval < other.interval:
        return one.limit * other.interval <= other.limit * one.interval
    return one.interval > other.interval and one.limit <= other.limit


class CallBudget:
    """The calls of one API key, with at least one limit. For several threads and processes."""

    def __init__(self, warehouse: Warehouse, api_key: str, rates: Rates) -> None:
        self._warehouse = warehouse
        self._rates = rates
        self._digest = hashlib.sha256(api_key.encode()).hexdigest()[:16]
        self._one_counts = threading.Lock()
        self._pool = ConnectionPool(
            warehouse.database_url,
            min_size=1,
            max_size=4,
            # The bucket's time stamps have no zone: the session's has to be the clock's.
            kwargs={"options": "-c timezone=UTC -c search_path=ops"},
            open=True,
        )
        self._bucket = PostgresBucket(self._pool, f"calls_{self._digest}", rates.as_list())

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the connections; what was counted stays."""
        self._pool.close()

    def take(self) -> datetime | None:
        """Count one call and return None; or return when the next is free, and count none.

        Waits for the windows of second and minute, for the day's only if that takes minutes.
        """
        paused_until = self._paused_until()
        if paused_until is not None:
            return paused_until
        while True:
            with self._one_counts:
                item = RateItem("call", self._now())
                decision = self._bucket.put_decision(item)
            assert not hasattr(decision, "__await__")
            if decision.allowed:
                return None
            if decision.retry_after_ms is None:
                # Another process was counting at this moment.
                time.sleep(random.uniform(0.002, 0.02))  # noqa: S311 # spreads, guards nothing
            elif (
                decision.failing_rate is not None
                and decision.failing_rate.interval >= _DAY_MS
                and decision.retry_after_ms > _SOON / timedelta(milliseconds=1)
            ):
                return datetime.now(UTC) + timedelta(milliseconds=decision.retry_after_ms)
            else:
                time.sleep(decision.retry_after_ms / 1000 + random.uniform(0, 0.02))  # noqa: S311

    def pause(self, until: datetime | None = None) -> datetime:
        """Note that the vendor wants to be left alone until then; return when to try again.

        For an hour, if it says that the day is spent and not when that ends.
        """
        until = until or datetime.now(UTC) + _PAUSE
        with self._warehouse.connect() as connection:
            connection.execute(
                "insert into ops.vendor_pauses (key_digest, paused_until) values (%s, %s) "
                "on conflict (key_digest) do update set paused_until = excluded.paused_until",
                (self._digest, until),
            )
        return until

    def allowance(self) -> Allowance:
        """Return what is left of the day."""
        per_day = self._rates.per_day
        paused_until = self._paused_until()
        if paused_until is not None:
            return Allowance(left=0, per_day=per_day, frees_at=paused_until)
        if per_day is None:
            return Allowance()
        with self._pool.connection() as connection:
            row = connection.execute(
                SQL(
                    "select count(*), min(item_timestamp at time zone 'UTC') from {} "
                    "where item_timestamp > now() at time zone 'UTC' - interval '1 day' + %s"
                ).format(Identifier(f"ratelimit___calls_{self._digest}")),
                (_SOON,),
            ).fetchone()
        assert row is not None
        used, oldest = row
        left = max(0, per_day - used)
        frees_at = oldest + timedelta(days=1) if oldest is not None and not left else None
        return Allowance(left=left, per_day=per_day, frees_at=frees_at)

    def _now(self) -> int:
        now = self._bucket.now()  # type: ignore[no-untyped-call] # the library's own
        assert isinstance(now, int)
        return now

    def _paused_until(self) -> datetime | None:
        with self._pool.connection() as connection:
            row = connection.execute(
                "select paused_until from ops.vendor_pauses "
                "where key_digest = %s and paused_until > now()",
                (self._digest,),
            ).fetchone()
        return row[0] if row else None
