"""Payloads damaged at random: no good row is lost, no bad one is loaded, and each bad one is told.

What is good is stated here anew, in plain Python and from the rules alone, row by row as written.
"""

import csv
import io
import json
import math
import re
from collections import Counter
from datetime import UTC, date, datetime, timedelta
from itertools import pairwise
from zoneinfo import ZoneInfo

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from stocks_assets.domain import calendar
from stocks_assets.domain.payloads import SILVER_TABLES
from stocks_assets.errors import PayloadError

TODAY = date(2024, 6, 28)
EVENING = datetime(2024, 6, 28, 23, tzinfo=UTC)
SESSIONS = calendar.sessions(date(2023, 12, 1), TODAY)
BARS = ("weekly_bars", "monthly_bars", "daily_bars", "intraday_bars")
DATA_KEYS = {
    "weekly_bars": "Weekly Adjusted Time Series",
    "monthly_bars": "Monthly Adjusted Time Series",
    "daily_bars": "Time Series (Daily)",
    "intraday_bars": "Time Series (5min)",
}
VALUES = ("open", "high", "low", "close", "volume")
PRICES = ("1. open", "2. high", "3. low", "4. close")
ADJUSTED = ("5. adjusted close", "6. volume", "7. dividend amount", "8. split coefficient")


def wide(text):
    """The text with digits that are none to a program, though Unicode says so."""
    return text.translate({ord("0") + n: 0xFF10 + n for n in range(10)})


NONSENSE = st.sampled_from(
    [
        *(None, True, False, "", " ", "n/a", "None", "-", "null", "NaN", "nan", "Infinity", "-inf"),
        *("1e400", "-1", "-0.01", "0", "1_0", "1,0", "0x10", " 10", "10 ", wide("12"), "\N{ARABIC-INDIC DIGIT THREE}", "10\0", "\ud800"),
        *("9223372036854775808", "1e30", "1.5", [], {}, ["10"], {"1. open": "10"}, float("nan")),
        *(float("inf"), 10**30, -3, "10.0.0", "ten", "10%", "$10", "1e", "--1", "+-1"),
    ]
)  # fmt: skip
PLAUSIBLE = st.sampled_from(
    ["9", "10", "10.5", "11.25", "12.0000", 10, 11.5, "1e1", "8.99", "12.01"]
)
# The reader of files leaves no half of a character in what it keeps.
WRITABLE = NONSENSE.filter(lambda value: isinstance(value, str) and value != "\ud800")
DATES = st.one_of(
    st.sampled_from([str(day) for day in SESSIONS[-30:]]),
    st.sampled_from(
        [
            *("2024-02-30", "2024-1-5", "24-01-05", "2999-01-04", "", "2024-06-29", "2024-07-01"),
            *("2024-06-19", "1899-12-29", "0000-01-01", wide("2024-06-03"), f"2024-06-0{wide('3')}", "20240603"),
            *("2024-06-03 ", "2024-06-03T00:00", "yesterday", "2024-06-03\0", "-2024-06-03", "None"),
        ]
    ),
)  # fmt: skip


def numeral(written):
    """The finite number that `written` is, or None; the ways to write one are those of JSON."""
    if isinstance(written, bool) or not isinstance(written, str | int | float):
        return None
    text = str(written)
    if not re.fullmatch(r"[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]+)?", text):
        return None
    value = float(text)
    return value if math.isfinite(value) else None


def whole(written):
    """The whole number of 64 bits that `written` is, or None."""
    value = numeral(written)
    if value is None:
        return None
    if re.fullmatch(r"[+-]?[0-9]+", str(written)):
        value = int(str(written))
    elif value != int(value):
        return None
    return int(value) if -(2**63) <= value < 2**63 else None


def day(written):
    if not isinstance(written, str) or not re.fullmatch(r"[12][0-9]{3}-[0-9]{2}-[0-9]{2}", written):
        return None
    try:
        return date.fromisoformat(written)
    except ValueError:
        return None


def moment(written):
    try:
        if not re.fullmatch(
            r"[12][0-9]{3}-[0-9]{2}-[0-9]{2} [0-9]{2}:[0-9]{2}:[0-5][0-9]", written
        ):
            return None
        return datetime.fromisoformat(written).replace(tzinfo=ZoneInfo("US/Eastern"))
    except (TypeError, ValueError):
        return None


def sound(table, bar):
    """The values of a bar whose own fields break no rule, or None."""
    if not isinstance(bar, dict):
        return None
    prices = [numeral(bar.get(field)) for field in PRICES]
    volume_field = "5. volume" if table == "intraday_bars" else "6. volume"
    written = bar.get(volume_field)
    if table == "daily_bars" and written is None:
        written = bar.get("5. volume")
    volume = whole(written)
    if None in prices or volume is None or volume < 0:
        return None
    first, high, low, last = prices
    if not 0 < low <= min(first, last) <= max(first, last) <= high:
        return None
    further = []
    if table != "intraday_bars":
        further = [(bar.get("5. adjusted close"), 0), (bar.get("7. dividend amount"), 0)]
    if table == "daily_bars":
        further.append((bar.get("8. split coefficient"), 1e-300))
    # The endpoint of raw prices has none of these.
    is_raw = table == "daily_bars" and not any(bar.get(field) is not None for field in ADJUSTED)
    values = []
    for given_value, least in further:
        value = numeral(given_value)
        may_lack = is_raw and given_value is None
        if not may_lack and (value is None or value < least):
            return None
        values.append(value)
    return (*prices, volume, *values)


def placed(table, label):
    """The key and the session of a label that breaks no rule, or None."""
    if table == "intraday_bars":
        at = moment(label)
        if at is None or at.date() not in SESSIONS or (at.year, at.month) != (2024, 6):
            return None
        return at.astimezone(ZoneInfo("UTC")), at.date()
    session = day(label)
    if session is None or session > TODAY or session not in SESSIONS:
        return None
    start = {
        "weekly_bars": session - timedelta(days=session.weekday()),
        "monthly_bars": session.replace(day=1),
        "daily_bars": session,
    }[table]
    return start, session


def out_of_order(table, labels):
    """The places of labels that are on the wrong side of a neighbour's."""
    at = [moment(label) if table == "intraday_bars" else day(label) for label in labels]
    if table == "intraday_bars":
        at = [time if time and (time.year, time.month) == (2024, 6) else None for time in at]
    steps = [(a, b) for a, b in pairwise(at) if a and b]
    falls = sum(a > b for a, b in steps) >= sum(a < b for a, b in steps)
    wrong = (lambda a, b: a < b) if falls else (lambda a, b: a > b)
    pairs = enumerate(pairwise(at))
    return {place for n, (a, b) in pairs if a and b and wrong(a, b) for place in (n, n + 1)}


def expected(table, pairs):
    """What is to be loaded, by key, and the labels of what is to be rejected.

    Of good bars of one period the latest session counts and the others are no error; of one session
    the first counts that stands in order, else the first, and one that says otherwise is rejected.
    """
    loaded, rejected = {}, Counter()
    astray = out_of_order(table, [label for label, _ in pairs])
    for number, (label, bar) in enumerate(pairs):
        place, values = placed(table, label), sound(table, bar)
        if place is None or values is None:
            rejected[json.dumps(label)] += 1
            continue
        key, session = place
        loaded.setdefault(key, []).append((session, values, label, number in astray))
    for key, rivals in loaded.items():
        latest = max(rival[0] for rival in rivals)
        of_session = sorted((r for r in rivals if r[0] == latest), key=lambda rival: rival[3])
        others = {rival[1] for rival in of_session} - {of_session[0][1]}
        for values in others:
            label = next(rival[2] for rival in of_session if rival[1] == values)
            rejected[json.dumps(label)] += 1
        loaded[key] = of_session[0][:2]
    return loaded, rejected


def sound_bar(table):
    bar = {"1. open": "10.0", "2. high": "12.0", "3. low": "9.0", "4. close": "11.0"}
    if table == "intraday_bars":
        return bar | {"5. volume": "7"}
    bar |= {"5. adjusted close": "9.5", "6. volume": "7", "7. dividend amount": "0.0000"}
    return bar | ({"8. split coefficient": "1.0"} if table == "daily_bars" else {})


@st.composite
def labels(draw, table):
    if table != "intraday_bars":
        return draw(DATES)
    clock = st.sampled_from(
        ["09:30:00", "15:55:00", "24:00:00", "9:30:00", "09:30", "09:30:60", f"{wide('0')}9:30:00"]
    )
    return f"{draw(DATES)} {draw(clock)}"


@st.composite
def series(draw):
    table = draw(st.sampled_from(BARS))
    pairs = []
    for _ in range(draw(st.integers(0, 7))):
        bar = sound_bar(table)
        if table == "daily_bars" and draw(st.integers(0, 4)) == 0:
            bar = {field: bar[field] for field in PRICES} | {"5. volume": "7"}
        for field in draw(st.lists(st.sampled_from(list(bar)), max_size=2)):
            match draw(st.sampled_from(["nonsense", "plausible", "missing"])):
                case "nonsense":
                    bar[field] = draw(NONSENSE)
                case "plausible":
                    bar[field] = draw(PLAUSIBLE)
                case "missing":
                    bar.pop(field, None)
        if draw(st.integers(0, 9)) == 0:
            bar = draw(st.sampled_from([None, 5, "bar", [], {}, [bar]]))
        pairs.append((draw(labels(table)), bar))
        if draw(st.integers(0, 4)) == 0:
            pairs.append(pairs[draw(st.integers(0, len(pairs) - 1))])
    return table, pairs


def as_json(pairs):
    """An object whose names may be given twice."""
    return (
        "{" + ", ".join(f"{json.dumps(name)}: {json.dumps(value)}" for name, value in pairs) + "}"
    )


def rejected_values(shaped):
    """The raw rows that were rejected; each has a rule."""
    assert all(len(rules) > 0 for rules in shaped.rejected["rules"])
    return [json.loads(row) for row in shaped.rejected["row_values"]]


def storable(label):
    return json.dumps(label.replace("\0", "\N{REPLACEMENT CHARACTER}"))


@settings(max_examples=150, deadline=None)
@given(series())
def test_each_good_bar_is_loaded_and_each_bad_one_rejected_as_it_was_written(case):
    table, pairs = case
    body = (
        f'{{"Meta Data": {{"6. Time Zone": "US/Eastern"}}, "{DATA_KEYS[table]}": {as_json(pairs)}}}'
    )
    name = "intraday_bars/2024-06" if table == "intraday_bars" else table
    shaped = SILVER_TABLES[table].shape("A", {name: body.encode()}, at=EVENING)
    loaded, rejected = expected(table, pairs)
    columns = ["session_date", *VALUES]
    if table != "intraday_bars":
        columns += ["adjusted_close", "dividend_amount"]
    if table == "daily_bars":
        columns += ["split_coefficient"]
    keys = shaped.rows[SILVER_TABLES[table].primary_key[1]]
    assert dict(zip(keys, shaped.rows.select(columns).rows(), strict=True)) == {
        key: (session, *values) for key, (session, values) in loaded.items()
    }
    assert shaped.rows.height == len(loaded)
    given_labels = Counter(json.dumps(row["label"]) for row in rejected_values(shaped))
    assert given_labels == Counter({storable(json.loads(name)): n for name, n in rejected.items()})


@settings(max_examples=60, deadline=None)
@given(series(), st.integers(1, 400))
def test_a_series_that_is_torn_off_is_refused_whole_with_a_reason(case, left):
    table, pairs = case
    body = f'{{"{DATA_KEYS[table]}": {as_json(pairs)}}}'.encode()
    name = "intraday_bars/2024-06" if table == "intraday_bars" else table
    with pytest.raises(PayloadError, match=f"a payload of {name} cannot be read: "):
        SILVER_TABLES[table].shape("A", {name: body[: -min(left, len(body))]}, at=EVENING)


# Corporate actions


@st.composite
def events(draw):
    dividends, splits = [], []
    for lines, ex_date, amount in (
        (dividends, "ex_dividend_date", "amount"),
        (splits, "effective_date", "split_factor"),
    ):
        for _ in range(draw(st.integers(0, 5))):
            line = {ex_date: "2024-06-03", amount: draw(PLAUSIBLE)}
            match draw(st.sampled_from(["none", "date", "amount", "missing", "line"])):
                case "date":
                    line[ex_date] = draw(DATES)
                case "amount":
                    line[amount] = draw(NONSENSE)
                case "missing":
                    line.pop(draw(st.sampled_from(list(line))))
                case "line":
                    line = draw(st.sampled_from([None, 5, "split", [], {}]))
            lines.append(line)
    return dividends, splits


def actions(lines, ex_date, amount):
    """The amounts on each ex-date, each once, and how many lines are bad.

    Lines that are bad for their day alone are one like good ones: the same line twice, and
    dividends of one day.
    """
    good, bad, of_days = {}, 0, set()
    for line in lines:
        fields = line if isinstance(line, dict) else {}
        on, value = day(fields.get(ex_date)), numeral(fields.get(amount))
        in_a_year = TODAY.replace(year=TODAY.year + 1)
        is_ex_date = on is not None and on <= in_a_year and calendar.is_session(on)
        if on is None or value is None or value <= 0:
            bad += 1
        elif not is_ex_date or on.year < 1960:
            of_days.add((on, value if amount == "split_factor" else None))
        else:
            good.setdefault(on, {})[value] = None
    return good, bad + len(of_days)


@settings(max_examples=120, deadline=None)
@given(events())
@example(
    ([], [{"effective_date": "2999-01-04", "split_factor": text} for text in ["9", "10", "10"]])
)
@example(([{"ex_dividend_date": "2999-01-04", "amount": text} for text in ["1", "2"]], []))
def test_each_good_action_is_loaded_and_each_bad_line_rejected(case):
    dividends, splits = case
    payloads = {
        "dividends": json.dumps({"symbol": "A", "data": dividends}).encode(),
        "splits": json.dumps({"symbol": "A", "data": splits}).encode(),
    }
    shaped = SILVER_TABLES["corporate_actions"].shape("A", payloads, at=EVENING)
    paid, bad_dividends = actions(dividends, "ex_dividend_date", "amount")
    split, bad_splits = actions(splits, "effective_date", "split_factor")
    rows = shaped.rows.select("ex_date", "action_type", "dividend_amount", "split_ratio").rows()
    loaded = {(on, kind): (amount, ratio) for on, kind, amount, ratio in rows}
    assert loaded == {
        **{(on, "dividend"): (pytest.approx(sum(amounts)), None) for on, amounts in paid.items()},
        **{(on, "split"): (None, next(iter(ratios))) for on, ratios in split.items()},
    }
    assert len(rows) == len(loaded)
    other_splits = sum(len(ratios) - 1 for ratios in split.values())
    assert len(rejected_values(shaped)) == bad_dividends + bad_splits + other_splits


# Files that people dropped


@settings(max_examples=60, deadline=None)
@given(
    st.lists(
        st.dictionaries(
            st.sampled_from(
                ["session_date", "open", "high", "low", "close", "volume", "split_coefficient"]
            ),
            st.one_of(DATES, WRITABLE, PLAUSIBLE.map(str)),
            max_size=2,
        ),
        max_size=6,
    ),
    st.sampled_from(["fill", "override"]),
)
def test_of_a_dropped_file_each_row_is_loaded_or_rejected(damages, precedence):
    whole_row = {"open": "10", "high": "12", "low": "9", "close": "11", "volume": "7"}
    rows = [
        {"session_date": str(SESSIONS[n])} | whole_row | damage for n, damage in enumerate(damages)
    ]
    document = {"precedence": precedence, "rows": rows}
    payloads = {"dropped_daily_bars/x": json.dumps(document).encode()}
    shaped = SILVER_TABLES["daily_bars"].shape("A", payloads, at=EVENING)
    untouched = {SESSIONS[n] for n, damage in enumerate(damages) if not damage}
    claimed = {row["session_date"] for row in rows}
    loaded = shaped.rows.rows(named=True)
    assert untouched <= {row["session_date"] for row in loaded}
    for row in loaded:
        assert str(row["session_date"]) in claimed or row["session_date"] in SESSIONS
        assert row["session_date"] in SESSIONS
        assert 0 < row["low"] <= min(row["open"], row["close"])
        assert max(row["open"], row["close"]) <= row["high"] < math.inf
        assert row["volume"] >= 0
        assert row["split_coefficient"] is None or row["split_coefficient"] > 0
    distinct = {json.dumps(row, sort_keys=True) for row in rows}
    assert len(distinct) <= shaped.rows.height + shaped.rejected.height <= len(rows)
    written = [json.dumps(row) for row in rows]
    for row in rejected_values(shaped):
        assert any(
            storable(json.loads(text)["session_date"]) == json.dumps(row["session_date"])
            for text in written
        )


# Companies


def is_given(value):
    nulls = ("", "None", "-", "null", "0000-00-00")
    return value is not None and str(value).strip() not in nulls


TEXT_FIELDS = {"Name": "company_name", "Sector": "sector", "Currency": "currency"}
NUMBER_FIELDS = {"EPS": "eps", "Beta": "beta"}
WHOLE_FIELDS = {"MarketCapitalization": "market_capitalization", "EBITDA": "ebitda"}
DATE_FIELDS = {"LatestQuarter": "latest_quarter"}


@settings(max_examples=100, deadline=None)
@given(
    st.dictionaries(
        st.sampled_from([*TEXT_FIELDS, *NUMBER_FIELDS, *WHOLE_FIELDS, *DATE_FIELDS]),
        st.one_of(NONSENSE, PLAUSIBLE, DATES),
    )
)
def test_a_company_is_loaded_if_all_that_is_given_of_it_can_be_read(damage):
    sound_one = {"Symbol": "A", "Name": "A Company", "Sector": "TECH", "Beta": "1.5", "EBITDA": "7"}
    overview = sound_one | damage
    payloads = {"companies": json.dumps(overview).encode()}
    shaped = SILVER_TABLES["companies"].shape("A", payloads, at=EVENING)
    name = overview["Name"]
    values, is_good = {}, is_given(name)
    for read, fields in ((numeral, NUMBER_FIELDS), (whole, WHOLE_FIELDS), (day, DATE_FIELDS)):
        for field, column in fields.items():
            values[column] = read(overview.get(field))
            is_good &= values[column] is not None or not is_given(overview.get(field))
    assert shaped.rows.height == is_good
    assert shaped.rejected.height == (not is_good)
    for row in shaped.rows.rows(named=True):
        assert {column: row[column] for column in values} == values
    for row in rejected_values(shaped):
        assert row.keys() == overview.keys()


# Listings


FIELDS = ("symbol", "name", "exchange", "assetType", "ipoDate", "delistingDate", "status")
LINE = {
    "active": ("NYSE", "Stock", "2000-01-03", "null", "Active"),
    "delisted": ("NYSE", "Stock", "2000-01-03", "2020-01-03", "Delisted"),
}


@settings(max_examples=80, deadline=None)
@given(
    st.sampled_from(["active", "delisted"]),
    st.lists(
        st.sampled_from(
            [
                *(("name", "Another Company"), ("exchange", ""), ("ipoDate", "2020-13-01")),
                *(("symbol", value) for value in ("", "null", "a b", wide("T2"), "A*", "T" * 40)),
                *(("delistingDate", value) for value in ("", "null", "2020-13-01", "2021-01-04")),
                *(("status", value) for value in ("", "null", "gone", "active", "DELISTED")),
            ]
        ),
        max_size=6,
    ),
)
def test_each_good_line_of_a_list_is_loaded_and_each_bad_one_rejected(state, damages):
    lines = []
    for n, (field, value) in enumerate(damages):
        line = dict(zip(FIELDS, (f"T{n}", f"Company {n}", *LINE[state]), strict=True))
        line[field] = value
        lines.append(line)
    text = io.StringIO()
    writer = csv.DictWriter(text, FIELDS, lineterminator="\n")
    writer.writeheader()
    writer.writerows(lines)
    payloads = {f"listings/{state}": text.getvalue().encode()}
    shaped = SILVER_TABLES["listings"].shape("", payloads, at=EVENING)
    good = {
        line["symbol"]
        for line in lines
        if re.fullmatch(r"T[0-9]", line["symbol"])
        and day(line["ipoDate"])
        and line["status"].lower() == state
        and (state == "active" or day(line["delistingDate"]))
    }
    assert set(shaped.rows["ticker"]) == good
    assert shaped.rows.height == len(good)
    assert set(shaped.rows["status"]) <= {state}
    rejected = [
        json.dumps({k: v or None for k, v in line.items()})
        for line in lines
        if line["symbol"] not in good
    ]
    assert sorted(json.dumps(row) for row in rejected_values(shaped)) == sorted(rejected)
