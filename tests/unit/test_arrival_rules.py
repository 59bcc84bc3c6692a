"""What the sensor decides, and that it misses nothing and loads nothing twice, come what may."""

from bisect import bisect_right
from collections import Counter
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
)

from stocks_assets.adapters.bronze_index import BronzeIndex
from stocks_assets.domain import arrivals
from stocks_assets.domain.arrivals import (
    BRONZE,
    LISTED,
    READERS,
    Busy,
    Listed,
    Reach,
    Standing,
    Unloaded,
    due,
    pause,
    plan_loads,
    read_key,
    sort_out,
    strange_folder,
    sweeps_of,
    tail_end,
    tail_start,
)
from stocks_assets.domain.bronze_key import BronzeKey
from stocks_assets.domain.hints import HINTS_A_LOOK, PAGES_OF_HINTS
from stocks_assets.domain.payloads import SILVER_TABLES
from stocks_assets.errors import InvalidKeyError

NOW = datetime(2026, 3, 4, 21, 30, tzinfo=UTC)
HASH = "0123456789abcdef"


def key(ticker="IBM", at=NOW, dataset="weekly_bars", part="", hash_=HASH):
    return BronzeKey(dataset, ticker, at, hash_, part, LISTED[dataset].form)


# What a listing has


def test_an_object_is_new_confirmed_overwritten_or_known():
    listing = [Listed(str(key(ticker)), "e") for ticker in ("A", "B", "C", "D")]
    known = {str(key("B")): None, str(key("C")): "other", str(key("D")): "e"}
    found = sort_out(listing, known, NOW)
    assert found.new == [(key("A"), "e")]
    assert found.confirmed == [listing[1]]
    assert found.overwritten == [listing[2]]
    (notice,) = found.notices
    assert notice.key == listing[2].key
    assert "its ETag was other" in notice.reason


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("bronze/weekly_bars/IBM.json", "is not a bronze key; expected bronze/<dataset>/"),
        (str(key()).replace("2026-03-04", "2026-13-04"), "is not a bronze key"),
        (str(key()).replace("weekly_bars", "hourly_bars"), "there is no dataset 'hourly_bars'"),
        (str(key("", part="x")), "an object of weekly_bars is of a ticker"),
        (str(key("IBM", part="active", dataset="listings")), "is of the market, written ~"),
        (str(key(part="extra")), "weekly_bars has no part 'extra'"),
        (str(key(dataset="intraday_bars")), "intraday_bars has no part ''"),
        (str(key(dataset="intraday_bars", part="2024-13")), "has no part '2024-13'"),
        (str(key(dataset="dropped_actions")), "dropped_actions has no part ''"),
        (str(key()).replace(".json.", ".csv."), "weekly_bars is kept as .json.gz"),
        (str(key(at=NOW + timedelta(days=2))), "dated more than a day ahead"),
        (str(key(at=datetime(1, 1, 1, tzinfo=UTC))), "dated before 1970"),
        (str(key()).replace("2026", "\u0662\u0660\u0662\u0666"), "is not a bronze key"),
    ],
)
def test_what_cannot_be_loaded_is_named_with_the_reason(text, reason):
    with pytest.raises(InvalidKeyError, match="bronze") as caught:
        read_key(text, NOW)
    assert reason in str(caught.value)
    (notice,) = sort_out([Listed(text, "e")], {}, NOW).notices
    assert notice == (text, "e", str(caught.value))


@pytest.mark.parametrize(
    "good",
    [
        key(),
        key("BF/B"),
        key(at=NOW + timedelta(hours=14)),
        key(at=datetime(1970, 1, 1, tzinfo=UTC)),
        key("", dataset="listings", part="active"),
        key(dataset="intraday_bars", part="2024-03"),
        key(dataset="dropped_actions", part="x-csv-01"),
    ],
)
def test_what_can_be_loaded_is(good):
    assert read_key(str(good), NOW) == good


def test_a_folder_without_a_dataset_is_named():
    assert strange_folder("bronze/weekly_bars/") is None
    notice = strange_folder("bronze/prices/")
    assert notice is not None
    assert "there is no dataset 'prices'; there are listings, weekly_bars" in notice.reason


def test_every_table_reads_what_it_is_loaded_from():
    for table in SILVER_TABLES.values():
        for dataset in table.inputs:
            assert table.name in READERS[dataset.name]


# Where to look


@given(
    times=st.lists(st.datetimes(timezones=st.just(UTC))),
    ticker=st.sampled_from(["A", "ZZ", "BRK.B", "BF/B"]),
)
def test_keys_sort_as_their_times_do(times, ticker):
    keys = [str(key(ticker, at)) for at in times]
    assert sorted(keys) == [str(key(ticker, at)) for at in sorted(times)]


def test_the_tail_goes_back_to_a_known_object_or_to_the_beginning():
    assert tail_start("weekly_bars", Reach(NOW, str(key()))) == str(key())
    assert tail_start("weekly_bars", Reach(NOW)) == "bronze/weekly_bars/"


def sweeps(reach, every=timedelta(minutes=5)):
    return sweeps_of("splits", reach, NOW, late_days=3, recent_every=every)


def test_sweeps_come_again_after_their_time_and_when_the_clock_went_back():
    recent, whole = sweeps(Reach())
    assert recent.start == "bronze/splits/2026-03-01/"
    assert whole.start == "bronze/splits/"
    assert due([recent, whole], {}, NOW) == [recent, whole]
    standings = {
        recent.name: Standing(None, NOW - timedelta(minutes=6)),
        whole.name: Standing(None, NOW - timedelta(hours=6)),
    }
    assert due([recent, whole], standings, NOW) == [recent]
    standings[whole.name] = Standing("bronze/splits/2020", NOW - timedelta(hours=30))
    assert due([whole, recent], standings, NOW) == [recent, whole]
    assert due([whole, recent], standings, NOW - timedelta(days=9)) == [recent, whole]


def test_of_the_last_days_and_of_all_those_come_first_that_ended_longest_ago():
    split, bar = (
        sweeps_of(name, Reach(), NOW, late_days=3, recent_every=timedelta(0))
        for name in ("splits", "weekly_bars")
    )
    standings = {
        split[0].name: Standing(None, NOW - timedelta(minutes=1)),
        bar[0].name: Standing("bronze/weekly_bars/2026-03-02", NOW - timedelta(minutes=2)),
        split[1].name: Standing("bronze/splits/2020", NOW - timedelta(hours=25)),
        bar[1].name: Standing(None, NOW - timedelta(hours=24)),
    }
    assert due([*split, *bar], standings, NOW) == [bar[0], split[0], split[1], bar[1]]


def test_the_tail_ends_where_nothing_can_be_taken_up_any_more():
    end = tail_end("weekly_bars", NOW)
    assert str(key("ZZ", NOW + timedelta(days=1))) < end
    assert end <= str(key("A", NOW + timedelta(days=3)))
    assert end < "bronze/weekly_bars/AAPL.json"


def test_the_last_days_are_those_before_the_newest_object():
    recent, _ = sweeps(Reach(NOW - timedelta(days=90)))
    assert recent.start == "bronze/splits/2025-12-01/"


# What to load


def unloaded(ticker, *, requests=0, requested_at=None, noticed_at=NOW, is_reported=False):
    return Unloaded(ticker, 2, requests, requested_at, noticed_at, is_reported, f"mark {ticker}")


def plan(*lines, universe=("IBM", "MSFT"), busy=None, registers=False):
    busy = busy or Busy()
    return plan_loads(lines, universe=universe, busy=busy, registers=registers, now=NOW)


def test_a_run_is_for_exactly_the_tickers_that_have_something_new():
    made = plan(unloaded("MSFT"), unloaded("IBM"))
    assert made.tickers == ["IBM", "MSFT"]
    assert made.objects == 4
    assert plan(unloaded("IBM"), universe=("IBM", "MSFT", "A")).tickers == ["IBM"]
    assert plan().tickers == []


def test_strangers_are_reported_once_or_registered_if_that_is_wanted():
    made = plan(unloaded("IBM"), unloaded("NEW"), unloaded("OLD", is_reported=True))
    assert made.tickers == ["IBM"]
    assert [one.ticker for one in made.strangers] == ["NEW"]
    made = plan(unloaded("IBM"), unloaded("NEW"), unloaded("OLD", is_reported=True), registers=True)
    assert made.tickers == ["IBM", "NEW", "OLD"]
    assert made.register == ["NEW", "OLD"]
    assert made.strangers == []


def test_what_a_run_at_work_will_load_is_left_to_it():
    made = plan(unloaded("IBM"), unloaded("MSFT"), busy=Busy(frozenset({"IBM"})))
    assert (made.tickers, made.held) == (["MSFT"], 1)
    made = plan(unloaded("IBM"), unloaded("MSFT"), busy=Busy(everything=True))
    assert (made.tickers, made.held) == ([], 2)


def test_what_has_waited_for_an_hour_does_not_wait_for_the_rest():
    old = unloaded("IBM", noticed_at=NOW - timedelta(hours=1))
    assert plan(old, busy=Busy(everything=True)).tickers == ["IBM"]
    assert plan(old, busy=Busy(frozenset({"IBM"}), everything=True)).tickers == []


def test_an_attempt_that_came_to_nothing_is_made_up_for_at_once_and_then_ever_more_seldom():
    assert plan(unloaded("IBM", requests=1, requested_at=NOW)).tickers == ["IBM"]
    made = plan(unloaded("IBM", requests=3, requested_at=NOW - timedelta(seconds=90)))
    assert (made.tickers, made.paused) == ([], 1)
    assert plan(unloaded("IBM", requests=3, requested_at=NOW - timedelta(minutes=2))).tickers
    pauses = [pause(n) for n in range(100)]
    assert pauses == sorted(pauses)
    # An outage counts as many attempts; when it is over, nothing has to wait for long.
    assert max(pauses) == timedelta(minutes=15)


def test_the_market_needs_no_ticker_and_no_universe():
    made = plan(unloaded(""), universe=())
    assert made.has_market
    assert made.tickers == made.strangers == []


# All of it together, against a bucket and books in memory


PAGE = 4


class Bucket:
    """Objects in order; counts the calls that list it."""

    def __init__(self):
        self.etags = {}
        self.order = []
        self.calls = 0

    def put(self, text, etag):
        if text not in self.etags:
            self.order.insert(bisect_right(self.order, text), text)
        self.etags[text] = etag

    def page(self, prefix, after):
        self.calls += 1
        start = bisect_right(self.order, max(after, prefix))
        following = self.order[start : start + PAGE + 1]
        below = [text for text in following if text.startswith(prefix)]
        return [Listed(text, self.etags[text]) for text in below[:PAGE]], len(below) > PAGE

    def below(self, prefix, after):
        self.calls += 1
        rest = [text.removeprefix(prefix) for text in self.order if text.startswith(prefix)]
        folders = {f"{prefix}{text.split('/')[0]}/" for text in rest if "/" in text}
        strays = {f"{prefix}{text}" for text in rest if "/" not in text}
        following = sorted(text for text in folders | strays if text > after)
        page = following[:PAGE]
        listed = [Listed(text, self.etags[text]) for text in page if text in strays]
        stopped_at = page[-1] if len(following) > PAGE else None
        return [text for text in page if text in folders], listed, stopped_at


class Books:
    """What is known; `unloaded` are the contents that silver has to load."""

    def __init__(self):
        self.etags = {}
        self.times = {}
        self.notices = {}
        self.sweeps = {}
        self.unloaded = {}
        self.named = {}

    @contextmanager
    def open(self):
        yield self

    def reach(self, dataset, until, count):
        count = min(count, PAGE - 1)  # as much less as a page is smaller here
        prefix = BronzeKey.prefix(dataset)
        newest = sorted(
            (at, text) for text, at in self.times.items() if text.startswith(prefix) and at <= until
        )[-count:]
        return Reach(
            newest[-1][0] if newest else None, newest[0][1] if len(newest) == count else None
        )

    def known(self, keys):
        return {text: self.etags[text] for text in keys if text in self.etags}

    def note(self, found):
        for new, etag in found.new:
            if str(new) not in self.etags:
                self.etags[str(new)], self.times[str(new)] = etag, new.fetched_at
                self.unloaded[str(new)] = 0
        for text, etag in found.confirmed:
            self.etags[text] = etag
        for text, etag in found.overwritten:
            self.etags[text] = etag
            self.unloaded[text] = 0
        for notice in found.notices:
            self.notices.setdefault((notice.key, notice.etag), notice.reason)

    def standings(self, names):
        return {name: self.sweeps[name] for name in names if name in self.sweeps}

    def stand(self, name, standing):
        self.sweeps[name] = standing

    def hints(self, count):
        return list(self.named)[:count]

    def forget(self, hints):
        for hint in hints:
            del self.named[hint]


TICKERS = ["A", "AA", "IBM", "MSFT", "ZZ"]
SKEWS = st.one_of(
    st.just(timedelta(0)),
    st.integers(-90, 90).map(lambda seconds: timedelta(seconds=seconds)),
    st.integers(-72, 23).map(lambda hours: timedelta(hours=hours)),
    st.integers(-4000, -3).map(lambda days: timedelta(days=days)),
)


class Platform(RuleBasedStateMachine):
    """Uploads, ticks, runs and kills in any order; at the end each content is loaded once.

    What was overwritten and is read before a listing has it is loaded once more, and no oftener.
    """

    def __init__(self):
        super().__init__()
        self.bucket, self.books = Bucket(), Books()
        self.index = BronzeIndex(self.bucket, self.books)
        self.now = NOW
        self.number = 0
        self.loaded = Counter()
        # Contents that were read before it was noticed that they are new: they are loaded again.
        self.early = set()
        self.run = None
        self.requested = {}

    @initialize(count=st.integers(0, 40))
    def objects_of_before(self, count):
        for number in range(count):
            self.upload("A", timedelta(hours=-number), "weekly_bars", False)

    def _put(self, text):
        self.number += 1
        self.bucket.put(text, f"etag {self.number}")

    @rule(
        ticker=st.sampled_from(TICKERS),
        skew=SKEWS,
        dataset=st.sampled_from(["weekly_bars", "splits"]),
        own=st.booleans(),
    )
    def upload(self, ticker, skew, dataset, own):
        at = (self.now + skew).replace(microsecond=0)
        text = str(key(ticker, at, dataset, hash_=f"{self.number:016x}"))
        self._put(text)
        if own:  # a run of the project notes what it puts
            self.books.note(arrivals.Found(new=[(BronzeKey.parse(text), None)]))

    @rule(count=st.integers(1, 3 * PAGE))
    def upload_many_in_one_second(self, count):
        for _ in range(count):
            self.upload(TICKERS[self.number % 5], timedelta(0), "weekly_bars", False)

    @precondition(lambda self: self.bucket.order)
    @rule(data=st.data())
    def overwrite(self, data):
        self._put(data.draw(st.sampled_from(self.bucket.order)))

    @rule(
        name=st.sampled_from(
            ["bronze/splits/x.txt", "bronze/x", "bronze/other/x", "bronze/splits/a/b"]
        )
    )
    def put_what_is_none_of_ours(self, name):
        self._put(name)

    @rule(count=st.integers(1, 3 * PAGE), end=st.sampled_from([".csv", "/x.csv"]))
    def put_the_same_of_many_tickers_right_below_bronze(self, count, end):
        for number in range(count):
            self._put(f"bronze/AAPL{number}{end}")

    @rule(count=st.integers(1, 3 * PAGE))
    def put_many_that_sort_last(self, count):
        for number in range(count):
            self._put(f"bronze/splits/AAPL{number}.csv")

    @precondition(lambda self: self.bucket.order)
    @rule(data=st.data())
    def the_store_says_what_it_wrote(self, data):
        self.books.named[data.draw(st.sampled_from(self.bucket.order))] = None

    @rule(
        named=st.sampled_from(["", "x", "bronze/", "bronze/splits/", "bronze/other/x", "inbox/x"])
        | st.builds(
            lambda ticker, days: str(key(ticker, NOW - timedelta(days=days))),
            st.sampled_from(TICKERS),
            st.integers(-5, 4000),
        )
    )
    def somebody_says_what_is_not_so(self, named):
        self.books.named[named] = None

    @rule(minutes=st.integers(-200, 2000))
    def time_passes_or_the_clock_is_set(self, minutes):
        self.now += timedelta(minutes=minutes)

    @rule()
    def lose_where_sweeps_stand(self):
        self.books.sweeps.clear()

    @rule()
    def tick(self):
        before = self.bucket.calls
        hints = len(self.books.named)
        self.index.look(self.now)
        calls = self.bucket.calls - before
        assert calls <= 1 + 20 + 5 + min(hints, PAGES_OF_HINTS)
        assert len(self.books.named) <= max(0, hints - PAGES_OF_HINTS)
        lines = [
            Unloaded(ticker, 1, *self.requested.get(ticker, (0, None)), self.now, False, ticker)
            for ticker in {BronzeKey.parse(text).ticker for text in self.books.unloaded}
        ]
        busy = Busy(frozenset(self.run or ()), everything=self.run is not None)
        made = plan_loads(lines, universe=TICKERS, busy=busy, registers=False, now=self.now)
        if made.tickers:
            self.run = list(made.tickers)
            for ticker in made.tickers:
                self.requested[ticker] = (self.requested.get(ticker, (0, None))[0] + 1, self.now)

    def _load(self, most):
        for text in sorted(self.books.unloaded)[:most]:
            if BronzeKey.parse(text).ticker not in self.run:
                continue
            content = text, self.bucket.etags[text]
            if self.books.etags[text] is None:  # what it was put with is noted by the next listing
                self.books.etags[text] = self.bucket.etags[text]
            elif self.books.etags[text] != self.bucket.etags[text]:
                self.early.add(content)
            del self.books.unloaded[text]
            self.loaded[content] += 1

    @precondition(lambda self: self.run is not None)
    @rule(most=st.integers(0, 10))
    def kill_the_run(self, most):
        self._load(most)
        self.run = None

    @precondition(lambda self: self.run is not None)
    @rule()
    def finish_the_run(self):
        self._load(None)
        self.run = None

    @rule(dataset=st.sampled_from(["weekly_bars", "splits"]))
    def a_run_of_another_kind_syncs(self, dataset):
        self.index.sync(dataset, self.now)

    @invariant()
    def nothing_is_loaded_twice_and_what_is_kept_is_bounded(self):
        for content, count in self.loaded.items():
            assert count <= 1 + (content in self.early)
        assert len(self.books.sweeps) <= 1 + 2 * len(LISTED)

    def teardown(self):
        """Once people leave it alone, all that is there is loaded, none more often than it may."""
        if self.run is not None:
            self.finish_the_run()
        # Past every clock that was ever set, so that nothing is dated ahead.
        self.now += timedelta(days=3)
        for _ in range(60):
            self.now += timedelta(hours=7)
            self.tick()
            if self.run is not None:
                self.finish_the_run()
        noticed = {name for name, _ in self.books.notices}
        for text in self.bucket.order:
            try:
                BronzeKey.parse(text)
            except InvalidKeyError:
                folder = f"{BRONZE}{text.split('/')[1]}/"
                assert text in noticed or folder in noticed
                continue
            content = text, self.bucket.etags[text]
            assert self.loaded[content] == 1 + (content in self.early)
        self.nothing_is_loaded_twice_and_what_is_kept_is_bounded()
        # Nothing new: a call right below bronze/, one a dataset, and what goes on of the sweeps.
        self.index.look(self.now)
        before = self.bucket.calls
        found = self.index.look(self.now + timedelta(seconds=30))
        assert (found.new, found.overwritten) == (0, 0)
        assert self.bucket.calls - before <= 1 + len(LISTED) + 5


TestPlatform = Platform.TestCase
TestPlatform.settings = settings(
    max_examples=25,
    stateful_step_count=25,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much],
)


def known_bars(count, every):
    """A bucket with weekly bars that are known, one `every` so often up to now, and its books."""
    bucket, books = Bucket(), Books()
    for number in range(count):
        at = NOW - every * number
        text = str(key("IBM", at))
        bucket.etags[text] = books.etags[text] = "e"
        books.times[text] = at
    bucket.order = sorted(bucket.etags)
    return bucket, books


@pytest.mark.parametrize(("stored", "calls"), [(2, 11), (1_000, 16), (20_000, 16)])
def test_a_look_that_finds_nothing_costs_the_same_however_much_is_stored(stored, calls):
    bucket, books = known_bars(stored, timedelta(minutes=1))
    index = BronzeIndex(bucket, books)
    for _ in range(3):
        look = index.look(NOW + timedelta(seconds=30))
        assert (look.calls, look.new) == (calls, 0)


@pytest.mark.parametrize("end", [".csv", "/x.csv"])
def test_more_below_bronze_than_a_page_has_hides_nothing_and_is_reported_page_by_page(end):
    bucket, books = Bucket(), Books()
    index = BronzeIndex(bucket, books)
    for number in range(10 * PAGE):
        bucket.put(f"bronze/AAPL{number:02}{end}", "e")
    bucket.put(str(key()), "e")
    assert index.look(NOW).new == 1
    for _ in range(10):
        index.look(NOW)
    names = {f"bronze/AAPL{number:02}{end.removesuffix('x.csv')}" for number in range(10 * PAGE)}
    assert {name for name, _ in books.notices} == names
    # And again from the beginning.
    bucket.put("bronze/AAPL00.txt", "e")
    for _ in range(11):
        index.look(NOW)
    assert ("bronze/AAPL00.txt", "e") in books.notices


def test_a_late_key_does_not_wait_for_the_sweep_over_all_of_a_dataset():
    bucket, books = known_bars(2_000, timedelta(hours=1))
    index = BronzeIndex(bucket, books)
    for _ in range(20):
        index.look(NOW)
    assert books.sweeps["recent weekly_bars"].ended_at == NOW
    assert books.sweeps["whole weekly_bars"].position is not None
    bucket.put(str(key("MSFT", NOW - timedelta(hours=50))), "e")
    # The last days, up to four of them, are listed twice over, 3 pages a look.
    assert sum(index.look(NOW).new for _ in range(2 * 4 * 24 // PAGE // 3)) == 1
    # 2 pages a look are left for all of it.
    for _ in range(2_000 // PAGE // 2):
        index.look(NOW)
    assert books.sweeps["whole weekly_bars"] == Standing(None, NOW)


# What the store said


def quiet_bars():
    """A bucket with weekly bars that are known, its books and index; no sweep is to begin."""
    bucket, books = known_bars(2_000, timedelta(hours=1))
    for name in LISTED:
        books.sweeps[f"whole {name}"] = Standing(None, NOW)
    index = BronzeIndex(bucket, books)
    for _ in range(20):
        assert index.look(NOW).new == 0
    return bucket, books, index


def test_a_hint_of_a_late_key_is_followed_by_the_next_look_and_polling_goes_on_as_before():
    late = str(key("MSFT", NOW - timedelta(days=50)))
    found, looked = [], []
    for is_hinted in (False, True):
        bucket, books, index = quiet_bars()
        bucket.put(late, "e")
        if is_hinted:
            books.named[late] = None
        look = index.look(NOW)
        found.append((look.new, look.hinted, late in books.unloaded))
        looked.append((look.calls - look.hinted, books.sweeps))
        assert books.named == {}
        assert index.look(NOW).new == 0
    assert found == [(0, 0, False), (1, 1, True)]
    assert looked[0] == looked[1]


def test_a_hint_of_an_overwritten_object_has_it_seen_at_once():
    bucket, books, index = quiet_bars()
    overwritten = bucket.order[7]
    bucket.put(overwritten, "other")
    books.named[overwritten] = None
    assert index.look(NOW).overwritten == 1


def test_a_hint_of_what_is_not_there_costs_a_call_and_changes_nothing():
    _, books, index = quiet_bars()
    calls = index.look(NOW).calls

    def known():
        # Sweeps go on with each look.
        return {name: dict(value) for name, value in vars(books).items() if name != "sweeps"}

    before = known()
    books.named[str(key("MSFT", NOW - timedelta(days=50)))] = None
    # Known, and in the tail, which is listed anyway; others are no keys at all.
    books.named |= dict.fromkeys(
        [str(key("IBM", NOW)), "", "bronze/", "bronze/splits/x", "inbox/x"]
    )
    look = index.look(NOW)
    assert (look.new, look.hinted, look.calls) == (0, 1, calls + 1)
    assert known() == before
    assert index.look(NOW).calls == calls


def test_hints_of_a_day_share_calls_and_those_of_many_days_wait_for_the_next_look():
    bucket, books, index = quiet_bars()
    calls = index.look(NOW).calls
    day = [str(key("MSFT", NOW - timedelta(days=900, minutes=m))) for m in range(PAGE)]
    days = [str(key("MSFT", NOW - timedelta(days=200 + d))) for d in range(3 * PAGES_OF_HINTS)]
    for late in day:
        bucket.put(late, "e")
        books.named[late] = None
    look = index.look(NOW)
    assert (look.new, look.hinted, look.calls) == (PAGE, PAGE, calls + 1)
    for late in days:
        bucket.put(late, "e")
        books.named[late] = None
    looks = [index.look(NOW) for _ in range(4)]
    assert [look.new for look in looks] == [PAGES_OF_HINTS] * 3 + [0]
    assert all(look.calls <= calls + PAGES_OF_HINTS for look in looks)
    assert books.named == {}


def test_a_look_takes_no_more_hints_than_it_may():
    _, books, index = quiet_bars()
    books.named = dict.fromkeys(f"x{number}" for number in range(HINTS_A_LOOK + 10))
    index.look(NOW)
    assert len(books.named) == 10


def test_hints_of_the_newest_objects_move_no_tail_past_what_is_unknown():
    bucket, books = known_bars(2_000, timedelta(hours=1))
    index = BronzeIndex(bucket, books)
    # More than the tails have calls for, and the store has named the last ones alone.
    new = [str(key("MSFT", NOW + timedelta(seconds=s))) for s in range(30 * PAGE)]
    for text in new:
        bucket.put(text, "e")
    books.named = dict.fromkeys(new[-PAGE:])
    look = index.look(NOW + timedelta(hours=1))
    assert look.hinted == 0
    assert index.look(NOW + timedelta(hours=1)).new > 0
    for _ in range(3):
        index.look(NOW + timedelta(hours=1))
    assert set(new) <= set(books.etags)


def test_what_one_dataset_has_left_to_list_leaves_the_others_their_share():
    bucket, books = Bucket(), Books()
    for number in range(40 * PAGE):
        bucket.put(f"bronze/listings/2026-03-04/x{number:03}", "e")
    late = [key("IBM", NOW - timedelta(minutes=number)) for number in range(8 * PAGE)]
    for one in late:
        bucket.put(str(one), "e")
    look = BronzeIndex(bucket, books).look(NOW)
    # A page of each of the ten, and then in turn; the sweeps begin at the beginning as well.
    assert look.calls == 1 + 20 + 5
    assert look.new == 6 * PAGE


@pytest.mark.parametrize("name", ["2099-01-01/{:03}.json", "AAPL{:03}.json"])
def test_what_sorts_last_and_cannot_be_read_is_not_listed_by_every_look(name):
    bucket, books = Bucket(), Books()
    index = BronzeIndex(bucket, books)
    strange = [f"bronze/weekly_bars/{name.format(number)}" for number in range(40 * PAGE)]
    for text in [str(key()), *strange]:
        bucket.put(text, "e")
    looks = [index.look(NOW) for _ in range(20)]
    assert [look.new for look in looks[:2]] == [1, 0]
    assert {look.calls for look in looks} == {1 + 10 + 5}
    assert {name for name, _ in books.notices} == set(strange)
