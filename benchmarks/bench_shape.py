"""What it costs to shape a payload: with care one by one, and the quick way in a batch.

Payloads are of the sample market and of recorded sizes. Those that are read with care have an
object which is no bar. Times are those of the processor, the least of all rounds, so that what
else runs on the machine is not in them. The last line is of the daily bars: milliseconds a payload,
and its rows.
"""

import argparse
import json
import time
from collections.abc import Callable
from datetime import date

from stocks_assets.domain.payloads import SILVER_TABLES, Payloads
from stocks_assets.domain.sample_market import SampleMarket
from stocks_assets.errors import PayloadError

MARKET = SampleMarket(first_session=date(2000, 3, 1))
THIRTEEN_YEARS, TWENTY_FOUR_YEARS = date(2013, 3, 1), date(2024, 4, 15)


def payloads_of(table: str, ticker: str) -> Payloads:
    match table:
        case "daily_bars":
            body = MARKET.reply("TIME_SERIES_DAILY_ADJUSTED", ticker, THIRTEEN_YEARS)
        case "weekly_bars":
            body = MARKET.reply("TIME_SERIES_WEEKLY_ADJUSTED", ticker, TWENTY_FOUR_YEARS)
        case "monthly_bars":
            body = MARKET.reply("TIME_SERIES_MONTHLY_ADJUSTED", ticker, TWENTY_FOUR_YEARS)
        case _:
            body = MARKET.reply(
                "TIME_SERIES_INTRADAY",
                ticker,
                TWENTY_FOUR_YEARS,
                interval="5min",
                month="2024-03",
            )
            table = f"{table}/2024-03"
    return {table: body}


def with_another_object(payloads: Payloads) -> Payloads:
    return {name: b'{"unknown": {}, ' + body[1:] for name, body in payloads.items()}


def best_ms(work: Callable[[], object], rounds: int) -> float:
    times = []
    for _ in range(rounds):
        start = time.process_time()
        work()
        times.append(time.process_time() - start)
    return min(times) * 1000


def measure(table: str, tickers: list[str], rounds: int) -> dict[str, float]:
    shaper = SILVER_TABLES[table]
    quick = {ticker: payloads_of(table, ticker) for ticker in tickers}
    careful = {ticker: with_another_object(payloads) for ticker, payloads in quick.items()}
    rows = 0
    for shaped in shaper.shape_many(quick).values():
        if isinstance(shaped, PayloadError):
            raise shaped
        rows += shaped.rows.height
    return {
        "careful_ms": best_ms(lambda: [shaper.shape(*each) for each in careful.items()], rounds)
        / len(tickers),
        "fast_ms": best_ms(lambda: shaper.shape_many(quick), rounds) / len(tickers),
        "rows": rows // len(tickers),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--tickers", type=int, default=20)
    parser.add_argument("--rounds", type=int, default=5)
    arguments = parser.parse_args()
    # Those that are listed all the time, so that sizes are as recorded.
    listed = [
        ticker
        for ticker in MARKET.tickers(2 * arguments.tickers)
        if b'"2000-03-01"' in payloads_of("daily_bars", ticker)["daily_bars"]
        and b'"2024-03-28 ' in payloads_of("intraday_bars", ticker)["intraday_bars/2024-03"]
    ][: arguments.tickers]
    print(f"{'a payload of':<14}{'rows':>7}{'careful ms':>12}{'fast ms':>9}{'share':>7}")
    results = {}
    for table in ("daily_bars", "weekly_bars", "monthly_bars", "intraday_bars"):
        result = results[table] = measure(table, listed, arguments.rounds)
        share = result["fast_ms"] / result["careful_ms"]
        print(
            f"{table:<14}{result['rows']:>7}{result['careful_ms']:>12.2f}"
            f"{result['fast_ms']:>9.2f}{share:>7.0%}"
        )
    print(json.dumps({name: round(value, 2) for name, value in results["daily_bars"].items()}))


if __name__ == "__main__":
    main()
