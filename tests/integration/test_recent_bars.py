"""Between whole histories a refresh asks for the newest bars, and comes to the same."""

from datetime import date

import pytest
from vendor import KEY, REFUSALS, Vendor

from stocks_assets.adapters import silver as loading
from stocks_assets.adapters.sources.alpha_vantage import AlphaVantageSource
from stocks_assets.domain.datasets import DAILY_BARS
from stocks_assets.domain.payloads import SILVER_TABLES, standing_of_reply
from stocks_assets.domain.recent import BARS_KEPT, Standing
from stocks_assets.domain.sample_market import SampleMarket

MARKET = SampleMarket()
DAY, NEXT_DAY, LAST_DAY = date(2026, 11, 18), date(2026, 11, 19), date(2026, 11, 20)
INGEST = ("bronze", "silver")
COLUMNS = [
    *("session_date", "open", "high", "low", "close", "volume"),
    *("adjusted_close", "dividend_amount", "split_coefficient"),
]
FUNCTION = "TIME_SERIES_DAILY_ADJUSTED"


def history(ticker, day, **how):
    return MARKET.reply(FUNCTION, ticker, day, **how)


class Premium:
    """A vendor with the sample market of a day, and the source that calls it with a premium key."""

    def __init__(self, vendor):
        self.day, self.vendor = DAY, vendor
        self.source = AlphaVantageSource(KEY, premium=True, url=vendor.url, retry_wait=0.01)
        vendor.answer = self.answer

    def answer(self, asked):
        taken = ("outputsize", "month", "interval", "state")
        arguments = {name: asked.query[name] for name in taken if name in asked.query}
        return MARKET.reply(asked.function, asked.symbol, self.day, **arguments)

    def has(self, day):
        """Let the vendor be a day further, and forget which calls there were."""
        self.day = day
        self.vendor.calls.clear()

    @property
    def sizes(self):
        """The sizes in which daily bars were asked for, by ticker."""
        sizes = {}
        for call in self.vendor.calls:
            if call.function == FUNCTION:
                sizes.setdefault(call.symbol, []).append(call.query["outputsize"])
        return sizes


@pytest.fixture
def premium():
    with Vendor() as vendor:
        premium = Premium(vendor)
        yield premium
        premium.source.close()


def pass_days(world, days, whole=1):
    """Make all answers older by so many days; whole histories by others."""
    with world.warehouse.connect() as connection:
        connection.execute(
            "update ops.fetches set checked_at = checked_at - %s * interval '1 day', "
            "had_at = had_at - %s * interval '1 day', whole_at = whole_at - %s * interval '1 day'",
            (days, days, whole),
        )


def restated_on(day, before):
    """Return a ticker with a dividend or split on `day`, and one without since `before`."""
    found = {}
    for ticker in MARKET.tickers(400):
        if b"Error Message" in history(ticker, before):
            continue
        found.setdefault(standing_of_reply(history(ticker, day), stored(ticker, before)), ticker)
        if {Standing.RESTATED, Standing.NEW} <= found.keys():
            break
    return found[Standing.RESTATED], found[Standing.NEW]


def bars(ticker, day):
    payloads = {DAILY_BARS.name: history(ticker, day)}
    return SILVER_TABLES["daily_bars"].shape(ticker, payloads).rows.sort("session_date")


def stored(ticker, day):
    """Return what silver has of the newest bars once it has the history of `day`."""
    return bars(ticker, day).tail(BARS_KEPT).select(COLUMNS)


def closes(world, ticker):
    return dict(
        world.query(
            "select session_date, adjusted_close from silver.daily_bars "
            f"where ticker = '{ticker}' order by 1"
        ).rows()
    )


def truth(ticker, day):
    """Return what a whole history of the day says."""
    return dict(bars(ticker, day).select("session_date", "adjusted_close").rows())


def test_a_day_asks_for_the_newest_bars_and_for_all_where_an_action_restated_them(world, premium):
    restated, quiet = restated_on(LAST_DAY, NEXT_DAY)
    tickers = [restated, quiet]
    world.add(*tickers)
    assert world.refresh(premium.source, tickers, layers=INGEST).success
    assert premium.sizes == {restated: ["full"], quiet: ["full"]}
    pass_days(world, 4)
    premium.has(NEXT_DAY)
    assert world.refresh(premium.source, tickers, layers=INGEST).success
    assert premium.sizes[quiet] == ["compact"]
    for ticker in tickers:
        assert closes(world, ticker) == truth(ticker, NEXT_DAY)
    objects = set(world.objects())

    pass_days(world, 4)
    premium.has(LAST_DAY)
    assert world.refresh(premium.source, tickers, layers=INGEST).success
    assert premium.sizes == {restated: ["compact", "full"], quiet: ["compact"]}
    for ticker in tickers:
        assert closes(world, ticker) == truth(ticker, LAST_DAY)
    # Of what did not go on, nothing is kept.
    new = {key for key in set(world.objects()) - objects if "/daily_bars/" in key}
    assert len(new) == 2
    actions = world.query("select ticker, ex_date from silver.corporate_actions").rows()
    assert (restated, LAST_DAY) in actions
    assert (quiet, LAST_DAY) not in actions


def test_what_did_not_go_on_is_asked_for_as_a_whole_until_it_comes(world, premium):
    restated, _ = restated_on(LAST_DAY, NEXT_DAY)
    world.add(restated)
    premium.has(NEXT_DAY)
    assert world.refresh(premium.source, [restated], layers=INGEST).success
    pass_days(world, 4)
    premium.has(LAST_DAY)
    answer = premium.vendor.answer
    premium.vendor.answer = lambda asked: (
        REFUSALS["unknown symbol"] if asked.query.get("outputsize") == "full" else answer(asked)
    )
    world.refresh(premium.source, [restated], layers=INGEST)
    failed = world.query(
        "select ticker, reason from ops.failures where asset = 'bronze/daily_bars'"
    )
    assert failed["ticker"].to_list() == [restated]
    assert premium.sizes == {restated: ["compact", "full"]}
    assert closes(world, restated) == truth(restated, NEXT_DAY)
    premium.vendor.answer = answer
    pass_days(world, 8)
    premium.has(LAST_DAY)
    assert world.refresh(premium.source, [restated], layers=INGEST).success
    assert premium.sizes == {restated: ["full"]}
    assert closes(world, restated) == truth(restated, LAST_DAY)


def test_all_is_asked_for_once_a_week_by_name_and_where_silver_is_behind(world, premium):
    _, quiet = restated_on(LAST_DAY, NEXT_DAY)
    world.add(quiet)
    assert world.refresh(premium.source, [quiet], layers=INGEST).success
    pass_days(world, 8, whole=8)
    premium.has(NEXT_DAY)
    assert world.refresh(premium.source, [quiet], layers=("bronze",)).success
    assert premium.sizes == {quiet: ["full"]}
    # Nobody knows yet what silver makes of that object.
    pass_days(world, 4)
    premium.has(LAST_DAY)
    assert world.refresh(premium.source, [quiet], layers=INGEST).success
    assert premium.sizes == {quiet: ["full"]}
    premium.has(LAST_DAY)
    assert world.materialize(premium.source, "bronze/daily_bars", first=quiet).success
    assert premium.sizes == {quiet: ["full"]}
    pass_days(world, 4)
    premium.has(LAST_DAY)
    assert world.refresh(premium.source, [quiet], layers=INGEST).success
    assert premium.sizes == {quiet: ["compact"]}


def test_a_rebuild_from_whole_histories_and_newest_bars_comes_to_the_same(world, premium):
    _, quiet = restated_on(LAST_DAY, NEXT_DAY)
    world.add(quiet)
    assert world.refresh(premium.source, [quiet], layers=INGEST).success
    for day in (NEXT_DAY, LAST_DAY):
        pass_days(world, 4)
        premium.has(day)
        assert world.refresh(premium.source, [quiet], layers=INGEST).success
        assert premium.sizes == {quiet: ["compact"]}
    before = world.query("select * from silver.daily_bars order by session_date")
    table = SILVER_TABLES["daily_bars"]
    [result] = loading.rebuild(world.bronze, world.warehouse, table, [quiet])
    assert isinstance(result, loading.Loaded), result
    after = world.query("select * from silver.daily_bars order by session_date")
    own = ["load_id", "loaded_at"]
    assert after.drop(own).equals(before.drop(own))
    assert closes(world, quiet) == truth(quiet, LAST_DAY)
