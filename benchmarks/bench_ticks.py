"""What a tick of the catch-up, and the checks on the whole universe, cost with many bars stored.

Fills silver and the books as an evening leaves them on which all is done (5,000 tickers x 6,300
sessions by default, 20 objects a call), on a PostgreSQL of its own in a temporary folder. Then
times a tick before which no bars were counted, one where all were, one after loads of a few
tickers, and one after rows were lost; and each check on the universe, as each run of a refresh
makes it. The last line is one JSON object.
"""

import argparse
import json
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import dagster as dg
from bench_gold import copy, settle

from stocks_assets.adapters.dbt_project import project_digest
from stocks_assets.adapters.sources.sample import SampleSource
from stocks_assets.adapters.warehouse import Warehouse, ensure_database
from stocks_assets.defs.catch_up import catch_up
from stocks_assets.defs.checks import sessions_are_complete, silver_checks
from stocks_assets.defs.freshness import freshness_checks
from stocks_assets.domain.calendar import exchange_calendar_frame, last_closed_session, sessions
from stocks_assets.domain.datasets import DATASETS
from stocks_assets.domain.gaps import SETTLES_AFTER
from stocks_assets.domain.payloads import SILVER_TABLES
from stocks_assets.domain.planner import Allowance
from stocks_assets.domain.sample_market import SampleMarket
from stocks_assets.stack.embedded import EmbeddedStack

BAR = (
    "ticker, session_date, open, high, low, close, volume, "
    "bronze_key, load_id, loaded_at, row_version, known_at"
)
# Long enough for a night, so that none is due.
ANSWERED_AT = datetime.now(UTC) - timedelta(hours=1)


class Keyed(SampleSource):
    """The sample market behind a key with calls to spare, so that they are planned."""

    def allowance(self) -> Allowance:
        return Allowance()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--tickers", type=int, default=5_000)
    parser.add_argument("--sessions", type=int, default=6_300)
    parser.add_argument("--objects", type=int, default=20, help="of each dataset and ticker")
    parser.add_argument("--times", type=int, default=3, help="the best of so many is told")
    parser.add_argument("--home", type=Path, help="keep the servers' files, and use what is there")
    asked = parser.parse_args()
    names = [f"T{number:05}" for number in range(asked.tickers)]
    with tempfile.TemporaryDirectory(prefix="bench-ticks-") as folder:
        stack = EmbeddedStack(asked.home or Path(folder), s3=False)
        try:
            url = stack.start().database_url
            assert url
            ensure_database(url)
            warehouse = Warehouse(url)
            is_filled = not warehouse.missing_relations(["silver.daily_bars"])
            warehouse.migrate()
            if not is_filled:
                fill(warehouse, names, asked.sessions, asked.objects)
            seconds = measure(warehouse, names, asked.times)
        finally:
            stack.stop()
    print(json.dumps({"tickers": asked.tickers, "sessions": asked.sessions, **seconds}))


def fill(warehouse: Warehouse, tickers: Sequence[str], count: int, objects: int) -> None:
    """Store `count` daily bars of each ticker, and what the books say once all is done."""
    started = time.perf_counter()
    days = sessions(date(1999, 11, 1), last_closed_session(datetime.now(UTC) - SETTLES_AFTER))
    days = days[-count:]
    inputs = [
        (table.name, dataset.name) for table in SILVER_TABLES.values() for dataset in table.inputs
    ]
    fetched = [name for name, dataset in DATASETS.items() if not dataset.is_of_market]
    with warehouse.connect() as connection:
        copy(connection, "exchange_calendar", exchange_calendar_frame(days[0], date(2027, 12, 31)))
        connection.execute(
            f"insert into silver.daily_bars ({BAR}) "
            "select ticker, day, 10, 10, 10, 10, 1000, 'bronze/' || ticker, 'bench', %s, 1, %s "
            "from unnest(%s::text[]) ticker, unnest(%s::date[]) day",
            (ANSWERED_AT, ANSWERED_AT, list(tickers), list(days)),
        )
        connection.execute(
            "insert into bronze.objects (key, dataset, ticker, fetched_at, content_hash) "
            "select format('bronze/%%s/%%s/%%s', dataset, ticker, n), dataset, ticker, "
            "  %s - n * interval '1 day', n "
            "from unnest(%s::text[]) ticker, unnest(%s::text[]) dataset, generate_series(1, %s) n",
            (ANSWERED_AT, list(tickers), fetched, objects),
        )
        connection.execute(
            "insert into ops.fetches (dataset, ticker, checked_at, had_at, outcome) "
            "select dataset, ticker, %s, %s, 'Data' "
            "from unnest(%s::text[]) ticker, unnest(%s::text[]) dataset",
            (ANSWERED_AT, ANSWERED_AT, list(tickers), fetched),
        )
        connection.execute(
            "insert into ops.silver_loads "
            "  (table_name, ticker, bronze_keys, row_count, rejected_count, stored_count) "
            "select table_name, ticker, array_agg(format('bronze/%%s/%%s/1', dataset, ticker)), "
            "  %s, 0, case table_name when 'daily_bars' then %s end "
            "from unnest(%s::text[]) ticker, unnest(%s::text[], %s::text[]) i (table_name, dataset)"
            " group by 1, 2",
            (len(days), len(days), list(tickers), *map(list, zip(*inputs, strict=True))),
        )
        connection.execute(
            "insert into ops.gold_builds select unnest(%s::text[]), clock_timestamp(), %s",
            (list(tickers), project_digest()),
        )
    settle(warehouse)
    print(f"filled in {time.perf_counter() - started:.0f} s", flush=True)


def measure(warehouse: Warehouse, tickers: Sequence[str], times: int) -> dict[str, float]:
    """Return the seconds of ticks and checks."""
    url = warehouse.database_url.rsplit("/", 1)[0] + "/bench_dagster"
    ensure_database(url)
    storage = {
        "module": "stocks_assets.defs.storage",
        "class": "PooledPostgresStorage",
        "config": {"postgres_url": url.replace("postgresql://", "postgresql+psycopg2://")},
    }
    source = Keyed(SampleMarket(), lambda: date(2026, 11, 20))
    seconds: dict[str, float] = {}

    def timed(name: str, call: Callable[[], Any], often: int = times) -> Any:
        took = []
        for _ in range(often):
            started = time.perf_counter()
            answer = call()
            took.append(time.perf_counter() - started)
        seconds[name] = round(min(took), 2)
        print(f"{name:<44} {min(took):6.2f} s, at most {max(took):.2f}", flush=True)
        return answer

    with dg.instance_for_test(overrides={"storage": {"custom": storage}}) as instance:
        instance.add_dynamic_partitions("ticker", list(tickers))

        def tick() -> Any:
            context = dg.build_schedule_context(
                instance=instance,
                scheduled_execution_time=datetime.now(UTC),
                resources={"source": source, "warehouse": warehouse},
            )
            return catch_up(context)

        def forgetful() -> Any:
            with warehouse.connect() as connection:
                connection.execute("truncate ops.bar_counts, ops.bar_changes")
            return tick()

        assert isinstance(timed("tick, nothing counted before", forgetful), dg.SkipReason)
        assert isinstance(timed("tick", tick), dg.SkipReason)
        touch(warehouse, tickers[:50])
        assert isinstance(timed("tick, after loads of 50", tick, 1), dg.SkipReason)
        with lost_bars(warehouse, tickers[7]):
            (request,) = timed("tick, after rows were lost", tick, 1)
        assert request.run_config["resources"]["batch"]["config"]["tickers"] == [tickers[7]]
        assert isinstance(tick(), dg.SkipReason)
        context = dg.build_asset_check_context(instance=instance)

        def check(definition: dg.AssetChecksDefinition, *given: Any) -> Callable[[], Any]:
            return lambda: definition(*given, warehouse=warehouse)

        complete = check(sessions_are_complete, context)
        touch(warehouse, tickers[:500])
        timed("sessions_are_complete, after loads of 500", complete, 1)
        timed("sessions_are_complete", complete)
        for one in freshness_checks():
            (key,) = one.check_keys
            if key.asset_key.path[0] == "silver":
                timed(f"{key.asset_key.path[-1]}: {key.name}", check(one, context))
        for one in silver_checks(tolerated_share=0.1):
            (key,) = one.check_keys
            timed(f"{key.asset_key.path[-1]}: {key.name}", check(one))
    return seconds


def touch(warehouse: Warehouse, tickers: Sequence[str]) -> None:
    """Load the newest bar of each of `tickers` again, and build gold of it."""
    with warehouse.connect() as connection:
        connection.execute("create temporary table anew (like silver.daily_bars) on commit drop")
        connection.execute(
            "with gone as (delete from silver.daily_bars where ticker = any(%s) and session_date = "
            "  (select max(session_date) from silver.daily_bars) returning *) "
            "insert into anew select * from gone",
            (list(tickers),),
        )
        connection.execute(f"insert into silver.daily_bars ({BAR}) select {BAR} from anew")
        connection.execute(
            "update ops.silver_loads set loaded_at = clock_timestamp() "
            "where table_name = 'daily_bars' and ticker = any(%s)",
            (list(tickers),),
        )
        connection.execute(
            "update ops.gold_builds set built_at = clock_timestamp() where ticker = any(%s)",
            (list(tickers),),
        )


@contextmanager
def lost_bars(warehouse: Warehouse, ticker: str) -> Iterator[None]:
    """Have silver lack a hundred bars amid the history of `ticker`, for the block."""
    with warehouse.connect() as connection:
        connection.execute(
            "create table ops.bench_lost as select * from silver.daily_bars "
            "where ticker = %s order by session_date offset 100 limit 100",
            (ticker,),
        )
        connection.execute(
            "delete from silver.daily_bars using ops.bench_lost lost "
            "where daily_bars.ticker = lost.ticker and daily_bars.session_date = lost.session_date"
        )
    try:
        yield
    finally:
        with warehouse.connect() as connection:
            connection.execute(
                f"insert into silver.daily_bars ({BAR}) select {BAR} from ops.bench_lost"
            )
            connection.execute("drop table ops.bench_lost")


if __name__ == "__main__":
    main()
