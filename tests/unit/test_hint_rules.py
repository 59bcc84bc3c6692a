"""What events of a store come to, whoever sends them, and where they let the next look begin."""

import json
from bisect import bisect_right
from datetime import UTC, datetime, timedelta
from urllib.parse import quote, quote_plus

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stocks_assets.domain.arrivals import LISTED
from stocks_assets.domain.bronze_key import BronzeKey
from stocks_assets.domain.hints import (
    beyond_tails,
    hinted_keys,
    is_bronze,
    next_place,
    not_listed,
)

NOW = datetime(2026, 3, 4, 21, 30, tzinfo=UTC)
BUCKET = "stocks-raw"


def key(ticker="IBM", at=NOW, dataset="weekly_bars"):
    return str(BronzeKey(dataset, ticker, at, "0123456789abcdef"))


OLD = key(at=NOW - timedelta(days=2_000))


def record(named, bucket=BUCKET, event="ObjectCreated:Put"):
    s3 = {"s3SchemaVersion": "1.0", "bucket": {"name": bucket}, "object": {"key": named, "size": 1}}
    return {"eventVersion": "2.0", "eventName": event, "s3": s3}


def of_s3(*keys, bucket=BUCKET, event="ObjectCreated:Put"):
    return json.dumps({"Records": [record(quote_plus(one), bucket, event) for one in keys]})


def of_minio(named, bucket=BUCKET, event="s3:ObjectCreated:Put"):
    records = [record(quote(named, safe=""), bucket, event)]
    return json.dumps({"EventName": event, "Key": f"{bucket}/{named}", "Records": records})


def of_seaweedfs(named, bucket=BUCKET, event="create", **entry):
    """As SeaweedFS 4.48 has it, with less of what nobody reads."""
    parent, _, name = f"/buckets/{bucket}/{named}".rpartition("/")
    entry = {"name": name, "attributes": {"file_size": 1, "mime": "application/json"}} | entry
    side = "old_entry" if event == "delete" else "new_entry"
    message = {side: entry, "delete_chunks": True, "new_parent_path": parent, "signatures": [-1]}
    return json.dumps({"event_type": event, "key": f"{parent}/{name}", "message": message})


EVENTS = [of_s3, of_minio, of_seaweedfs]


# What comes in


@pytest.mark.parametrize("event", EVENTS)
@pytest.mark.parametrize("ticker", ["IBM", "BRK.B", "BF/B"])
def test_an_event_names_the_key_that_was_written(event, ticker):
    written = key(ticker)
    assert hinted_keys(event(written).encode(), BUCKET) == [written]
    assert hinted_keys(event(written).encode(), "another") == []


def test_an_event_of_many_records_names_each_key_once():
    written = [key("IBM"), key("MSFT"), key("IBM"), "bronze/x", key("A")]
    assert hinted_keys(of_s3(*written).encode(), BUCKET) == [key("IBM"), key("MSFT"), key("A")]


@pytest.mark.parametrize(
    "body",
    [
        of_s3(key(), event="ObjectRemoved:Delete"),
        of_minio(key(), event="s3:ObjectRemoved:Delete"),
        of_minio(key(), event="s3:ObjectAccessed:Get"),
        of_seaweedfs(key(), event="delete"),
        of_seaweedfs(key(), is_directory=True),
        of_s3(key(), bucket="another"),
        of_minio(key(), bucket="stocks-raw2"),
        of_seaweedfs(key(), bucket="stocks-raw/x"),
        '{"Service": "Amazon S3", "Event": "s3:TestEvent", "Bucket": "stocks-raw"}',
        '{"EventName": "", "Key": "", "Records": null}',
        f'{{"key": "/buckets/{BUCKET}/{key()}", "event_type": "create"}}',
        "{}",
    ],
)
def test_what_is_not_written_into_the_bucket_is_no_hint(body):
    assert hinted_keys(body.encode(), BUCKET) == []


HOSTILE = [
    "",
    "bronze/",
    "bronze/weekly_bars/",
    "bronze/weekly_bars/2026-03-04/x.json",
    "inbox/fill/x.csv",
    "quarantine/x",
    f"/{key()}",
    f"../{key()}",
    f"{key()}/",
    f"{key()}\n",
    f"{key()}\0",
    key().replace("weekly_bars", "hourly_bars"),
    key().replace("weekly_bars", "../weekly_bars"),
    key().replace("2026", "٢٠٢٦"),
    key().replace("IBM", "'; drop table bronze.hints; --"),
    key().replace("IBM", "I" * 2000),
    key().replace("IBM", "IBMü"),
]


@pytest.mark.parametrize("event", EVENTS)
@pytest.mark.parametrize("named", HOSTILE)
def test_what_is_no_key_of_a_dataset_is_no_hint(event, named):
    assert hinted_keys(event(named).encode(), BUCKET) == []


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"x",
        b"null",
        b"[]",
        b"[" * 100_000,
        b'{"Records": ' + b'[{"s3": ' * 50_000,
        b'{"x": ' * 50_000,
        b'{"Records": "' + key().encode() + b'"}',
        b'{"Records": [{"s3": {"bucket": {}, "object": {"key": 1}}}]}',
        b'{"message": {"new_entry": "x"}}',
        b'{"key": "\xff"}',
        b'{"key": "\\ud800',
    ],
)
def test_what_is_no_event_is_refused(body):
    with pytest.raises(ValueError, match=r"."):
        hinted_keys(body, BUCKET)


JSON = st.recursive(
    st.none() | st.booleans() | st.floats(allow_nan=False) | st.text(max_size=9) | st.just(key()),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(
                ["Records", "s3", "bucket", "object", "name", "key", "message", "new_entry"]
            ),
            inner,
            max_size=4,
        )
    ),
)


@given(st.binary(max_size=200) | JSON.map(lambda value: json.dumps(value).encode()))
def test_whatever_comes_is_refused_or_names_keys_of_datasets_alone(body):
    try:
        keys = hinted_keys(body, BUCKET)
    except ValueError:
        return
    assert all(BronzeKey.parse(one).dataset in LISTED for one in keys)


@given(
    named=st.text(st.characters(codec="utf-8"), max_size=30)
    | st.sampled_from([*HOSTILE, key(), key("BF/B")]),
    event=st.sampled_from(EVENTS),
)
def test_a_key_comes_out_as_it_went_in_or_not_at_all(named, event):
    keys = hinted_keys(event(named).encode(), BUCKET)
    assert keys == ([named] if is_bronze(named) else [])


# Where to look

HOURS = st.integers(0, 60).map(lambda number: timedelta(hours=7 * number))
KEYS = st.builds(
    lambda ticker, ago, dataset: key(ticker, NOW - ago, dataset),
    st.sampled_from(["A", "IBM", "BF/B"]),
    HOURS,
    st.sampled_from(["weekly_bars", "splits"]),
)


def test_what_the_tails_reach_needs_no_look_of_its_own():
    tail = key(at=NOW - timedelta(hours=1))
    starts = {"weekly_bars": tail, "splits": "bronze/splits/"}
    hints = [key(), tail, OLD, key(dataset="splits"), key(dataset="dividends"), "x", *HOSTILE]
    # The tail is listed after its start.
    assert beyond_tails(hints, starts) == [OLD, tail]


@given(
    stored=st.sets(KEYS, max_size=40),
    hints=st.sets(KEYS, max_size=20),
    page=st.integers(1, 5),
    pages=st.integers(0, 30),
)
def test_each_call_answers_a_hint_and_what_is_there_of_those_answered_was_listed(
    stored, hints, page, pages
):
    waiting, listed, calls = sorted(hints), set(), 0
    while waiting and calls < pages:
        place = next_place(waiting)
        order = sorted(one for one in stored if one.startswith(place.prefix))
        found = order[bisect_right(order, place.after) :]
        listed.update(found[:page])
        left = not_listed(waiting, place, found[page - 1] if len(found) > page else None)
        assert set(left) < set(waiting)
        assert left == sorted(left)
        waiting, calls = left, calls + 1
    assert calls <= len(hints)
    assert (hints - set(waiting)) & stored <= listed
    # Those of a day share their calls.
    assert page < len(stored) or calls <= len({one.rpartition("/")[0] for one in hints})


def test_a_hint_that_others_put_a_page_of_objects_before_holds_up_none():
    place = next_place([OLD, key()])
    # Not a key, and between the two ends.
    assert place.after < f"{OLD[:-1]}!" < OLD
    assert not_listed([OLD, key()], place, f"{OLD[:-1]}!") == [key()]
