from datetime import UTC, date, datetime, timedelta

import polars as pl
import pytest

from stocks_assets.domain.restatements import compare

KEY = ["ticker", "session_date"]
BEFORE, AFTER = datetime(2024, 1, 5, tzinfo=UTC), datetime(2024, 2, 5, tzinfo=UTC)
DAYS = [date(2024, 1, 2) + timedelta(days=n) for n in range(6)]


def bars(*closes, adjusted=None, dividends=None, splits=None, volume=100, ticker="A", at=BEFORE):
    """One bar a day from the first day on."""
    count = len(closes)
    return pl.DataFrame(
        {
            "ticker": [ticker] * count,
            "session_date": DAYS[:count],
            "close": [float(close) for close in closes],
            "adjusted_close": [float(value) for value in adjusted or closes],
            "volume": volume if isinstance(volume, list) else [volume] * count,
            "dividend_amount": [float(amount) for amount in dividends or [0] * count],
            "split_coefficient": splits or [1.0] * count,
            "bronze_key": [f"object of {at:%B}"] * count,
            "known_at": [at] * count,
            "row_version": [0] * count,
        },
        schema_overrides={"known_at": pl.Datetime("us", "UTC")},
    )


def comparing(stored, given, removed=None):
    """Compare as a load does: what is given is what differs."""
    values = [name for name in stored.columns if name not in ("bronze_key", "known_at")]
    delta = given.join(stored, on=values, how="anti", nulls_equal=True)
    known = stored.join(delta, on=KEY, how="semi")
    if removed is None:
        removed = stored.clear()
    removed = removed.with_columns(removed_at=pl.lit(AFTER), removed_by=pl.lit("object of March"))
    return compare(delta, known, removed, KEY, stored.select(KEY))


def test_a_new_row_supersedes_nothing():
    changes = comparing(bars(1, 2), bars(1, 2, 3, at=AFTER))
    assert changes.rows["session_date"].to_list() == [DAYS[2]]
    assert changes.superseded.is_empty()
    assert changes.restated.is_empty()


def test_a_corrected_volume_keeps_the_old_row_and_both_objects():
    changes = comparing(bars(1, 2, 3), bars(1, 2, 3, volume=[100, 101, 100], at=AFTER))
    (line,) = changes.superseded.to_dicts()
    assert line["class"] == "vendor correction"
    assert (line["old"]["volume"], line["new"]["volume"]) == (100, 101)
    assert (line["old_bronze_key"], line["new_bronze_key"]) == (
        "object of January",
        "object of February",
    )
    assert (line["known_at"], line["superseded_at"]) == (BEFORE, AFTER)
    assert changes.rows["known_at"].to_list() == [AFTER]


def test_a_value_printed_with_fewer_decimals_is_a_rounding():
    changes = comparing(bars(1.23456, 2), bars(1.2346, 2, at=AFTER))
    assert changes.superseded["class"].to_list() == ["rounding"]


def test_a_value_that_merely_is_near_is_a_correction():
    changes = comparing(bars(1.2346, 2), bars(1.2351, 2, at=AFTER))
    assert changes.superseded["class"].to_list() == ["vendor correction"]


RESTATEMENTS = {
    "dividend": (
        bars(10, 10, 9, adjusted=[9, 9, 9], dividends=[0.0, 0.0, 1.0], at=AFTER),
        "dividend",
    ),
    "split": (bars(10, 10, 5, adjusted=[5, 5, 5], splits=[1.0, 1.0, 2.0], at=AFTER), "split"),
    "both": (
        bars(
            10,
            10,
            9,
            4.5,
            adjusted=[4.5, 4.5, 4.5, 4.5],
            dividends=[0.0, 0.0, 1.0, 0.0],
            splits=[1.0, 1.0, 1.0, 2.0],
            at=AFTER,
        ),
        "dividend and split",
    ),
    "a split that only the factor tells of": (
        bars(10, 10, 5, adjusted=[5, 5, 5], at=AFTER).with_columns(
            split_coefficient=pl.lit(None, dtype=pl.Float64)
        ),
        "split",
    ),
    "correction": (bars(10, 10, 10, adjusted=[9.9, 9.9, 10], at=AFTER), "vendor correction"),
}


@pytest.mark.parametrize(("given", "expected"), RESTATEMENTS.values(), ids=RESTATEMENTS)
def test_a_restated_history_of_adjusted_closes_is_one_event(given, expected):
    stored = bars(10, 10)
    if given["split_coefficient"].null_count():
        stored = stored.with_columns(split_coefficient=pl.lit(None, dtype=pl.Float64))
    changes = comparing(stored, given)
    (event,) = changes.restated.to_dicts()
    assert event["class"] == expected
    assert event["keys"] == DAYS[:2]
    assert event["old_values"] == [10.0, 10.0]
    assert event["new_values"] == given["adjusted_close"].to_list()[:2]
    assert event["restated_at"] == AFTER
    assert changes.superseded.is_empty()


def test_a_row_whose_adjusted_close_alone_was_restated_is_known_since_before():
    given = bars(10, 10, 9, adjusted=[9, 9, 9], dividends=[0.0, 0.0, 1.0], at=AFTER)
    assert comparing(bars(10, 10), given).rows["known_at"].to_list() == [BEFORE, BEFORE, AFTER]


def test_adjusted_closes_printed_with_fewer_decimals_are_one_rounding():
    stored = bars(10, 10, adjusted=[9.12345, 9.54321])
    given = bars(10, 10, adjusted=[9.1235, 9.5432], at=AFTER)
    assert comparing(stored, given).restated["class"].to_list() == ["rounding"]


def test_each_ticker_has_its_own_event():
    stored = pl.concat([bars(10, 10), bars(10, 10, ticker="B")])
    given = pl.concat(
        [
            bars(10, 10, 5, adjusted=[5, 5, 5], splits=[1.0, 1.0, 2.0], at=AFTER),
            bars(10, 10, 9, adjusted=[9, 9, 9], dividends=[0.0, 0.0, 1.0], ticker="B", at=AFTER),
        ]
    )
    changes = comparing(stored, given)
    assert dict(changes.restated.select("ticker", "class").iter_rows()) == {
        "A": "split",
        "B": "dividend",
    }
    assert changes.by_ticker() == {
        "A": {"written": 3, "split restatement": 1},
        "B": {"written": 3, "dividend restatement": 1},
    }


def test_what_a_whole_history_has_no_more_is_removed_and_kept():
    stored = bars(1, 2, 3)
    changes = comparing(stored, bars(1, 2, at=AFTER), removed=stored.filter(pl.col("close") == 3))
    (line,) = changes.superseded.to_dicts()
    assert (line["class"], line["new"]) == ("removed", None)
    assert line["old"]["close"] == 3
    assert (line["superseded_at"], line["new_bronze_key"]) == (AFTER, "object of March")


def test_the_running_week_moves_on_without_being_restated():
    week = {"is_complete": [True, False]}
    stored = bars(1, 2).with_columns(**{name: pl.Series(v) for name, v in week.items()})
    given = bars(1, 3, at=AFTER).with_columns(pl.Series("is_complete", [True, True]))
    changes = comparing(stored, given)
    assert changes.superseded["class"].to_list() == ["running period"]
    assert changes.restated.is_empty()


def weeks(*closes, adjusted=None, dividends=None, complete=True, at=BEFORE):
    """One bar a week, as an endpoint without split coefficients gives them; the last may run."""
    rows = bars(*closes, adjusted=adjusted, dividends=dividends, at=at).drop("split_coefficient")
    over = [True] * (len(closes) - 1) + [complete]
    return rows.with_columns(pl.Series("is_complete", over))


def test_a_running_week_that_closes_as_before_is_no_part_of_the_restated_history():
    stored = weeks(*HISTORY, complete=False)
    adjusted, dividends = [9, 10.8, 9.9, 11.7, 11.9], [0.0] * 4 + [1.2]
    given = weeks(*HISTORY, adjusted=adjusted, dividends=dividends, at=AFTER)
    changes = comparing(stored, given)
    assert changes.superseded["class"].to_list() == ["running period"]
    (found,) = changes.restated.to_dicts()
    assert (found["class"], found["keys"]) == ("dividend", DAYS[:4])


def event(stored, given):
    """The class of the one event in which adjusted closes were restated."""
    (found,) = comparing(stored, given).restated.to_dicts()
    return found["class"]


HISTORY = [10, 12, 11, 13, 12]
VINTAGES = {
    "a dividend in a week that is new": (
        weeks(*HISTORY),
        weeks(*HISTORY, 11, adjusted=[9, 10.8, 9.9, 11.7, 10.8, 11], dividends=[0.0] * 5 + [1.2]),
        "dividend",
    ),
    "a dividend in the week that ran": (
        weeks(*HISTORY, complete=False),
        weeks(*HISTORY[:4], 9, adjusted=[9, 10.8, 9.9, 11.7, 9], dividends=[0.0] * 4 + [1.0]),
        "dividend",
    ),
    "a split in a week that is new": (
        weeks(*HISTORY),
        weeks(*HISTORY, 3, adjusted=[2.5, 3, 2.75, 3.25, 3, 3]),
        "split",
    ),
    "a spin-off, which is a small split": (
        weeks(*HISTORY),
        weeks(*HISTORY, 12, adjusted=[round(c / 1.046, 4) for c in HISTORY] + [12]),
        "split",
    ),
    "a split in the week that ran": (
        weeks(*HISTORY, complete=False),
        weeks(*HISTORY[:4], 6, adjusted=[5, 6, 5.5, 6.5, 6]),
        "split",
    ),
    "a dividend and a split": (
        weeks(*HISTORY),
        weeks(*HISTORY, 5, adjusted=[4.5, 5.4, 4.95, 5.85, 5.4, 5], dividends=[0.0] * 5 + [0.55]),
        "dividend and split",
    ),
    "a large dividend, whose ex-date had another close than its week": (
        weeks(*HISTORY),
        weeks(*HISTORY, 8, adjusted=[7, 8.4, 7.7, 9.1, 8.4, 8], dividends=[0.0] * 5 + [3.0]),
        "dividend",
    ),
    "one adjusted close corrected by a tenth": (
        weeks(*HISTORY),
        weeks(*HISTORY, adjusted=[10, 12, 12.1, 13, 12]),
        "vendor correction",
    ),
    "the oldest adjusted close corrected by a tenth": (
        weeks(*HISTORY),
        weeks(*HISTORY, adjusted=[9, 12, 11, 13, 12]),
        "vendor correction",
    ),
    "a past dividend that was of another amount": (
        weeks(*HISTORY, adjusted=[9, 10.8, 11, 13, 12], dividends=[0, 0, 1.2, 0, 0]),
        weeks(*HISTORY, adjusted=[9.5, 11.4, 11, 13, 12], dividends=[0, 0, 0.6, 0, 0], at=AFTER),
        "vendor correction",
    ),
    "old weeks of dividends that were not stored, and one correction": (
        weeks(*HISTORY)[2:],
        weeks(*HISTORY, adjusted=[8, 12, 11, 13.5, 12], dividends=[0, 2.0, 0, 0, 0], at=AFTER),
        "vendor correction",
    ),
    "four decimals in place of more": (
        weeks(*HISTORY, adjusted=[9.123456, 9.87654321, 10.55555, 11.00004, 12]),
        weeks(*HISTORY, adjusted=[9.1235, 9.8765, 10.5556, 11.0, 12]),
        "rounding",
    ),
    "a small dividend on a share that never paid one": (
        weeks(1.25, 1.31, 1.28),
        weeks(1.25, 1.31, 1.28, 1.3, adjusted=[1.2481, 1.308, 1.278, 1.3], dividends=[0.0] * 3 + [0.002]),
        "dividend",
    ),
}  # fmt: skip


@pytest.mark.parametrize(("stored", "given", "expected"), VINTAGES.values(), ids=VINTAGES)
def test_the_event_between_two_vintages_is_the_true_one(stored, given, expected):
    assert event(stored, given.with_columns(known_at=pl.lit(AFTER))) == expected


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        (3.5, 3.505, "vendor correction"),
        (3.5035, 3.5, "rounding"),
        (3.51, 3.5, "vendor correction"),
        (3.5035, 3.50354, "rounding"),
        (181.685, 181.69, "rounding"),
    ],
)
def test_a_price_with_fewer_decimals_was_rounded_and_one_with_more_is_another(old, new, expected):
    changes = comparing(bars(old, 2), bars(new, 2, at=AFTER))
    assert changes.superseded["class"].to_list() == [expected]


def raw(rows):
    """The rows as an endpoint of raw prices gives them."""
    nothing = pl.lit(None, dtype=pl.Float64)
    return rows.with_columns(
        adjusted_close=nothing, dividend_amount=nothing, split_coefficient=nothing
    )


def test_a_payload_without_adjusted_closes_restates_and_corrects_nothing():
    stored, given = bars(10, 11, dividends=[0.0, 0.5]), raw(bars(10, 11, at=AFTER))
    for changes in (comparing(stored, given), comparing(raw(stored), bars(10, 11, at=AFTER))):
        assert changes.restated.is_empty()
        assert changes.superseded["class"].to_list() == ["other columns"] * 2
        assert changes.superseded["old"].struct.field("close").to_list() == [10, 11]


def test_a_value_that_both_payloads_give_is_corrected_though_other_columns_are_gone():
    changes = comparing(bars(10, 11), raw(bars(10, 12, at=AFTER)))
    assert changes.superseded["class"].to_list() == ["other columns", "vendor correction"]


@pytest.mark.parametrize("key", ["old", "new"])
def test_what_a_file_changes_by_coming_or_going_is_no_correction(key):
    file = pl.lit("bronze/dropped_daily_bars/2024-02-05/120000.000000_A_f_0.json.gz")
    rows = {"old": bars(10, 11), "new": bars(10, 12, at=AFTER)}
    rows[key] = rows[key].with_columns(bronze_key=file)
    changes = comparing(rows["old"], rows["new"])
    assert changes.superseded["class"].to_list() == ["file"]


def test_adjusted_closes_of_a_reply_and_a_file_that_came_to_hold_together_are_one_event():
    given = bars(10, 10, adjusted=[9, 9], at=AFTER).with_columns(
        bronze_key=pl.Series(["a file", "the reply"])
    )
    (event,) = comparing(bars(10, 10), given).restated.to_dicts()
    assert (event["keys"], event["restated_at"]) == (DAYS[:2], AFTER)
    assert event["new_bronze_key"] == "the reply"


def test_a_restated_value_knows_which_object_said_the_old_one():
    stored = bars(10, 11, 12, 13).with_columns(bronze_key=pl.Series(["new", "old", "new", "file"]))
    given = bars(10, 11, 12, 13, adjusted=[9, 9.9, 10.8, 11.7], at=AFTER)
    (event,) = comparing(stored, given).restated.to_dicts()
    assert event["old_bronze_keys"] == ["new", "old", "file"]
    assert event["old_key_places"] == [1, 2, 1, 3]
