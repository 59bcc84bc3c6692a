"""Incremental equals full: whatever came in which order, gold is what a full refresh builds."""

import random
from dataclasses import dataclass, field
from datetime import date

import polars as pl
import pytest
from gold_history import ACTIONS, DAILY, IN_A_LIST, IN_BARS, Silver, longer_bars, query, tables

from stocks_assets.domain.calendar import sessions

DAYS = sessions(date(2024, 1, 2), date(2026, 6, 30))
# ALLM is the benchmark, and comes late.
TICKERS = ["AAA", "BBB", "CCC", "DDD", "ALLM"]

# Views stay as the first run made them.
WITHOUT_VIEWS = ("--exclude", "config.materialized:view")
KILLED = ("--select", "fct_daily_prices", "fct_weekly_prices")


@dataclass
class Market:
    """Bars and actions of a few tickers, which random events change."""

    dice: random.Random
    bars: dict[str, dict[date, dict]] = field(default_factory=dict)
    actions: dict[tuple, dict] = field(default_factory=dict)
    sectors: dict[str, str] = field(default_factory=dict)
    listings: list[dict] = field(default_factory=list)
    closed: list[date] = field(default_factory=list)
    calendar_end: date = date(2025, 6, 30)

    def trade(self, ticker: str, days: list[date]) -> None:
        own = self.bars.setdefault(ticker, {})
        self.sectors.setdefault(ticker, self.dice.choice(["ENERGY", "UTILITIES"]))
        close = own[max(own)]["close"] if own else 100.0
        # Falling and rising series have the extremes of a window at its far end.
        drift = 0.998 if ticker in ("AAA", "CCC") else 1.002
        for day in days:
            close = max(round(close * self.dice.gauss(drift, 0.02), 2), 1.0)
            own[day] = {
                "open": round(close * 0.995, 2),
                "high": round(close * 1.01, 2),
                "low": round(close * 0.99, 2),
                "close": close,
                "volume": self.dice.randrange(0, 10_000),
                "dividend_amount": 0.0,
                "split_coefficient": 1.0,
            }

    def a_ticker(self) -> str:
        return self.dice.choice(sorted(ticker for ticker, bars in self.bars.items() if bars))

    def a_day(self, ticker: str) -> date:
        return self.dice.choice(sorted(self.bars[ticker]))

    # Events. Each returns the tickers whose payloads are new.

    def a_session_of_all(self) -> set[str]:
        last = max(max(bars) for bars in self.bars.values() if bars)
        for ticker, own in self.bars.items():
            if own:
                self.trade(ticker, [day for day in DAYS if max(own) < day][: 1 + (max(own) < last)])
        return set(self.bars)

    def a_session_of_some(self) -> set[str]:
        some = {self.a_ticker(), self.a_ticker()}
        for ticker in some:
            self.trade(ticker, [day for day in DAYS if day > max(self.bars[ticker])][:1])
        return some

    def a_session_of_the_benchmark(self) -> set[str]:
        self.trade(
            "ALLM", [day for day in DAYS if day > max(self.bars["ALLM"], default=DAYS[0])][:1]
        )
        return {"ALLM"}

    def a_correction_of_the_benchmark(self) -> set[str]:
        return self.a_correction("ALLM") if self.bars.get("ALLM") else set()

    def a_correction(self, ticker: str | None = None) -> set[str]:
        ticker = ticker or self.a_ticker()
        bar = self.bars[ticker][self.a_day(ticker)]
        bar["close"] = round(bar["close"] * 1.001, 2)
        bar["volume"] += 1
        return {ticker}

    def a_split(self) -> set[str]:
        ticker = self.a_ticker()
        day = next(day for day in DAYS if day > max(self.bars[ticker]))
        self.trade(ticker, [day])
        ratio = self.dice.choice([2.0, 0.125, 1.046])
        bar = self.bars[ticker][day]
        for price in ("open", "high", "low", "close"):
            bar[price] = round(bar[price] / ratio, 4)
        bar["split_coefficient"] = ratio
        return {ticker}

    def a_late_action(self) -> set[str]:
        ticker = self.a_ticker()
        day = self.a_day(ticker)
        kind = self.dice.choice(["dividend", "split"])
        self.actions[ticker, day, kind] = {
            "dividend_amount": 0.5 if kind == "dividend" else None,
            "split_ratio": 3.0 if kind == "split" else None,
        }
        return {ticker}

    def a_halt(self) -> set[str]:
        """Sessions without a bar, in which actions fall."""
        ticker = self.a_ticker()
        own = self.bars[ticker]
        days = sorted(own)
        place = self.dice.randrange(1, max(len(days) - 8, 2))
        for day in days[place : place + 6]:
            del own[day]
        for day, kind, amount in (
            (days[place], "dividend", 0.5),
            (days[place + 1], "split", 3.0),
            (days[place + 2], "split", 0.5),
        ):
            self.actions[ticker, day, kind] = {
                "dividend_amount": amount if kind == "dividend" else None,
                "split_ratio": amount if kind == "split" else None,
            }
        return {ticker}

    def a_split_under_two_dates(self) -> set[str]:
        (ticker,) = self.a_split()
        day = max(self.bars[ticker])
        earlier = max(one for one in self.bars[ticker] if one < day)
        ratio = self.bars[ticker][day]["split_coefficient"]
        self.actions[ticker, earlier, "split"] = {"dividend_amount": None, "split_ratio": ratio}
        return {ticker}

    def an_action_taken_back(self) -> set[str]:
        if not self.actions:
            return set()
        key = self.dice.choice(sorted(self.actions))
        del self.actions[key]
        return {key[0]}

    def an_announced_dividend(self) -> set[str]:
        ticker = self.a_ticker()
        day = [day for day in DAYS if day > max(self.bars[ticker])][1]
        self.actions[ticker, day, "dividend"] = {"dividend_amount": 0.25, "split_ratio": None}
        return {ticker}

    def a_lost_session(self) -> set[str]:
        ticker = self.a_ticker()
        del self.bars[ticker][self.a_day(ticker)]
        return {ticker}

    def late_data(self) -> set[str]:
        ticker = self.a_ticker()
        own = self.bars[ticker]
        missing = [day for day in DAYS if day < max(own) and day not in own][-40:]
        kept = max(own)
        last = own[kept]
        self.trade(ticker, missing[:1] + missing[-1:])
        own[kept] = last
        return {ticker}

    def an_older_vintage(self) -> set[str]:
        ticker = self.a_ticker()
        own = self.bars[ticker]
        for day in sorted(own)[-3:]:
            if len(own) > 1:
                del own[day]
        return {ticker}

    def a_history_that_is_gone(self) -> set[str]:
        ticker = self.dice.choice(["BBB", "CCC"])
        self.bars[ticker] = {}
        return {ticker}

    def the_benchmark_comes(self) -> set[str]:
        return self.a_new_history("ALLM")

    def a_new_history(self, ticker: str | None = None) -> set[str]:
        ticker = ticker or self.dice.choice(TICKERS[:-1])
        last = max(max(bars) for bars in self.bars.values() if bars)
        self.bars[ticker] = {}
        self.trade(ticker, [day for day in DAYS if day <= last][-self.dice.randrange(200, 300) :])
        return {ticker}

    def a_ticker_used_again(self) -> set[str]:
        ticker = self.a_ticker()
        day = self.a_day(ticker)
        rows = [(day, "delisted"), (date(9999, 12, 31), "active")]
        self.listings = [row for row in self.listings if row["ticker"] != ticker]
        self.listings += [{"ticker": ticker, "delisted_on": d, "status": s} for d, s in rows]
        return {ticker}

    def a_corrected_listing(self) -> set[str]:
        """Nothing of the ticker is new but its listings, and no batch names it."""
        ended = [row for row in self.listings if row["status"] == "delisted"]
        if ended:
            row = self.dice.choice(ended)
            day = self.a_day(row["ticker"]) if self.bars[row["ticker"]] else DAYS[9]
            others = {r["delisted_on"] for r in self.listings if r["ticker"] == row["ticker"]}
            if day not in others:
                row["delisted_on"] = day
        return set()

    def a_listing_taken_back(self) -> set[str]:
        ended = [row for row in self.listings if row["status"] == "delisted"]
        if ended:
            self.listings.remove(self.dice.choice(ended))
        return set()

    def another_calendar(self) -> set[str]:
        last = max(max(bars) for bars in self.bars.values() if bars)
        past = [day for day in DAYS if day <= last]
        self.closed = [self.dice.choice(past[-30:]), past[-1]]
        self.calendar_end = date(2026, 12, 31)
        return set()

    def a_ticker_used_twice_more(self) -> set[str]:
        ticker = self.a_ticker()
        days = sorted(self.bars[ticker])
        first, second = days[len(days) // 3], days[2 * len(days) // 3]
        self.listings = [row for row in self.listings if row["ticker"] != ticker]
        self.listings += [
            {"ticker": ticker, "delisted_on": first, "status": "delisted"},
            {"ticker": ticker, "delisted_on": second, "status": "delisted"},
            {"ticker": ticker, "delisted_on": date(9999, 12, 31), "status": "active"},
        ]
        return {ticker}

    def a_dividend_that_restates(self) -> set[str]:
        """A dividend on the next session: the vendor's adjusted closes of all before it change."""
        ticker = self.a_ticker()
        day = next(day for day in DAYS if day > max(self.bars[ticker]))
        self.trade(ticker, [day])
        self.bars[ticker][day]["dividend_amount"] = 0.5
        return {ticker}

    def another_sector(self) -> set[str]:
        ticker = self.a_ticker()
        self.sectors[ticker] = self.dice.choice(["ENERGY", "UTILITIES", "TECHNOLOGY"])
        return {ticker}

    # What silver is to hold.

    def load(self, silver: Silver) -> None:
        silver.calendar(DAYS[0], self.calendar_end, self.closed)
        rows = [
            {"ticker": ticker, "session_date": day, **bar, "adjusted_close": None}
            for ticker, own in self.bars.items()
            for day, bar in own.items()
        ]
        daily = pl.DataFrame(rows, schema=DAILY).sort("ticker", "session_date")
        step = pl.col("split_coefficient") * (pl.col("close") + pl.col("dividend_amount"))
        factor = (pl.col("close") / step).shift(-1, fill_value=1.0).reverse().cum_prod().reverse()
        daily = daily.with_columns(
            (pl.col("close") * factor).round(4).over("ticker").alias("adjusted_close")
        )
        silver.load("daily_bars", daily.filter(pl.col("ticker") != "DDD"))
        # DDD has weekly and monthly bars alone, AAA has no weekly ones.
        silver.load(
            "weekly_bars", longer_bars(daily, "week_start", "1w").filter(pl.col("ticker") != "AAA")
        )
        # BBB has no monthly ones: its months are made of days and weeks.
        silver.load(
            "monthly_bars",
            longer_bars(daily, "month_start", "1mo").filter(pl.col("ticker") != "BBB"),
        )
        inside = daily.filter(pl.col("split_coefficient") != 1).select(
            "ticker",
            pl.col("session_date").alias("ex_date"),
            pl.lit("split").alias("action_type"),
            pl.lit(None, dtype=pl.Float64).alias("dividend_amount"),
            pl.col("split_coefficient").alias("split_ratio"),
            pl.lit(IN_BARS).alias("bronze_key"),
        )
        own = pl.DataFrame(
            [
                {"ticker": t, "ex_date": day, "action_type": kind, **amounts}
                for (t, day, kind), amounts in self.actions.items()
            ],
            schema=ACTIONS,
        ).with_columns(pl.lit(IN_A_LIST).alias("bronze_key"))
        actions = pl.concat([own, inside]).unique(
            ["ticker", "ex_date", "action_type"], keep="first"
        )
        silver.load("corporate_actions", actions)
        silver.load(
            "companies",
            pl.DataFrame(
                [
                    {"ticker": t, "company_name": t, "sector": s, "asset_type": "Common Stock"}
                    for t, s in self.sectors.items()
                ]
            ),
        )
        schema = {"ticker": pl.String, "delisted_on": pl.Date, "status": pl.String}
        silver.load("listings", pl.DataFrame(self.listings, schema=schema))


EVENTS = [
    Market.a_session_of_all,
    Market.a_session_of_all,
    Market.a_session_of_some,
    Market.a_session_of_the_benchmark,
    Market.a_correction,
    Market.a_correction_of_the_benchmark,
    Market.a_split,
    Market.a_late_action,
    Market.a_halt,
    Market.a_halt,
    Market.a_split_under_two_dates,
    Market.an_action_taken_back,
    Market.an_announced_dividend,
    Market.a_lost_session,
    Market.late_data,
    Market.an_older_vintage,
    Market.a_history_that_is_gone,
    Market.a_new_history,
    Market.a_ticker_used_again,
    Market.a_ticker_used_twice_more,
    Market.a_corrected_listing,
    Market.a_corrected_listing,
    Market.a_listing_taken_back,
    Market.another_calendar,
    Market.a_dividend_that_restates,
    Market.another_sector,
]


def assert_same(incremental, full):
    assert incremental.keys() == full.keys()
    for name, frame in full.items():
        left = incremental[name]
        assert left.height == frame.height, name
        if not left.equals(frame):
            wrong = [c for c in frame.columns if not left[c].equals(frame[c])]
            rows = left.with_row_index().filter(
                pl.any_horizontal(left[c].ne_missing(frame[c]) for c in wrong)
            )
            pytest.fail(f"{name}: {wrong}\n{rows.head(3)}\n{frame[rows['index'].head(3)]}")


@pytest.mark.parametrize("seed", [1, 2])
def test_any_history_of_refreshes_leaves_what_a_full_refresh_builds(warehouse, dbt, seed):
    dice = random.Random(seed)
    market, silver = Market(dice), Silver(warehouse)
    for place, ticker in enumerate(TICKERS[:-1]):
        market.trade(ticker, DAYS[place : 300 + place])
    market.load(silver)
    dbt("run", tickers=TICKERS)
    events = EVENTS.copy()
    dice.shuffle(events)
    events.append(Market.the_benchmark_comes)
    # Runs see one to three events; of one run only a part is done, as if it had been killed.
    killed = dice.randrange(2, 4)
    number = 0
    while events:
        number += 1
        touched: set[str] = set()
        for _ in range(min(dice.randrange(1, 4), len(events))):
            touched |= events.pop()(market)
        if number == killed:
            touched |= market.a_correction("AAA") | market.a_late_action()
        market.load(silver)
        part = KILLED if number == killed else WITHOUT_VIEWS
        dbt("run", *part, tickers=sorted(touched))
    dbt("test", "--select", "test_type:data", "--exclude", "dim_company_history")
    incremental = tables(warehouse)
    dbt("run", "--full-refresh")
    assert_same(incremental, tables(warehouse))
    betas = incremental["staging.int_daily_returns"]["beta_252d"]
    assert betas.is_not_null().any()


def kept(warehouse, model):
    """The changes of the newest run of a model: tickers and how far their rows stayed."""
    return query(
        warehouse,
        "select ticker, kept_through from ops.gold_changes join ops.gold_offsets "
        f"using (model, run_id) where model = '{model}' order by ticker",
    ).rows()


def test_a_new_session_adds_a_row_and_a_correction_rewrites_what_follows_it(warehouse, dbt):
    market, silver = Market(random.Random(7)), Silver(warehouse)
    for ticker in ("AAA", "BBB"):
        market.trade(ticker, DAYS[:30])
    market.load(silver)
    dbt("run", tickers=["AAA", "BBB"])

    def rows(table, where="true"):
        return set(query(warehouse, f"select ctid::text from {table} where {where}")["ctid"])

    series = ("gold.fct_daily_prices", "staging.int_daily_indicators", "staging.int_daily_returns")
    before = {table: rows(table) for table in series}
    market.trade("AAA", [DAYS[30]])
    market.load(silver)
    dbt("run", *WITHOUT_VIEWS, tickers=["AAA", "BBB"])
    for table in series:
        assert rows(table, f"session_date < '{DAYS[30]}'") == before[table], table
        assert len(rows(table)) == len(before[table]) + 1, table
    assert kept(warehouse, "int_daily_returns") == [("AAA", DAYS[29])]

    market.bars["BBB"][DAYS[20]]["volume"] += 1
    market.load(silver)
    dbt("run", *WITHOUT_VIEWS, tickers=["AAA", "BBB"])
    assert kept(warehouse, "fct_daily_prices") == [("BBB", DAYS[19])]
    dbt("run", *WITHOUT_VIEWS, tickers=["AAA", "BBB"])
    assert kept(warehouse, "fct_daily_prices") == []


def test_all_actions_of_a_ticker_that_is_used_again_become_those_of_the_other_security(
    warehouse, dbt
):
    market, silver = Market(random.Random(7)), Silver(warehouse)
    market.trade("AAA", DAYS[:60])
    # An even number of actions that are alike.
    for day in DAYS[40:44]:
        market.actions["AAA", day, "dividend"] = {"dividend_amount": 0.5, "split_ratio": None}
    market.load(silver)
    dbt("run", tickers=["AAA"])
    rows = [(DAYS[30], "delisted"), (date(9999, 12, 31), "active")]
    market.listings = [{"ticker": "AAA", "delisted_on": d, "status": s} for d, s in rows]
    market.load(silver)
    dbt("run", *WITHOUT_VIEWS, tickers=["AAA"])
    keys = query(
        warehouse,
        "select distinct actions.security_key = prices.security_key as is_of_the_security "
        "from gold.fct_corporate_actions as actions inner join gold.fct_daily_prices as prices "
        "on actions.ticker = prices.ticker and actions.ex_date = prices.session_date",
    )
    assert keys["is_of_the_security"].to_list() == [True]
