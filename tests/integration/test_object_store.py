"""Objects go through two clients, which have to come to the same."""

import gzip
import logging
import os
from gzip import BadGzipFile

import obstore
import pytest
from botocore.exceptions import ClientError, EndpointConnectionError
from obstore.store import S3Store

from stocks_assets.adapters.object_store import ObjectStore, S3Location

KEYS = ("bronze/a/2026-11-20/BRK%2EB/1.json.gz", "bronze/a/2026-11-20/BF%2FB/x+y=1 z.csv.gz")


@pytest.fixture(params=["both clients", "boto3 alone"])
def either(request, store):
    """A store with both clients, and one without the quick one."""
    if request.param == "boto3 alone":
        store._quick = None
    return store


@pytest.mark.parametrize("key", KEYS)
def test_an_object_is_stored_once_and_comes_back_through_either_client(either, key):
    assert not either.has(key)
    assert either.put_new(key, b'{"a": 1}', {"function": "SPLITS"})
    assert not either.put_new(key, b'{"a": 2}', {"function": "SPLITS"})
    assert either.has(key)
    assert either.get(key) == b'{"a": 1}'
    assert [entry.key for entry in either.entries("bronze/a/")] == [key]
    found = either._client.get_object(Bucket=either.bucket, Key=key)
    assert found["Metadata"] == {"function": "SPLITS"}
    assert found["ContentEncoding"] == "gzip"
    assert found["ContentType"] == ("text/csv" if ".csv" in key else "application/json")
    assert gzip.decompress(found["Body"].read()) == b'{"a": 1}'


def test_what_is_not_there_too_large_or_not_packed_is_an_error_through_either_client(either):
    with pytest.raises(ClientError, match="NoSuchKey"):
        either.get("bronze/none")
    either.put_new("bronze/large", b"1" * 10_000, {})
    with pytest.raises(BadGzipFile, match="more than"):
        either.get("bronze/large", max_bytes=20)
    either.put_text("bronze/plain", "text")
    with pytest.raises(BadGzipFile):
        either.get("bronze/plain")


def test_reading_and_writing_go_through_the_quick_client_as_long_as_it_works(store, caplog):
    """boto3 is not asked while the quick one has an answer, and a missing object is no reason."""
    client, store._client = store._client, None
    assert store.put_new("bronze/one", b"1", {})
    assert store.get("bronze/one") == b"1"
    assert store.has("bronze/one")
    store._client = client
    with pytest.raises(ClientError):
        store.get("bronze/none")
    assert not store.has("bronze/none")
    assert store._quick is not None
    assert not caplog.records


def test_where_the_quick_client_fails_and_boto3_does_not_it_is_let_be_and_that_is_said(
    store, caplog
):
    def broken():
        return S3Store(
            store.bucket,
            endpoint="http://127.0.0.1:9",
            region="us-east-1",
            access_key_id="a",
            secret_access_key="b",
            client_options={"allow_http": True},
            retry_config={"max_retries": 0},
        )

    with pytest.raises(obstore.exceptions.BaseError):
        obstore.get(broken(), "bronze/one")
    for work in (
        lambda: store.put_new("bronze/one", b"1", {}),
        lambda: store.get("bronze/one") == b"1",
        lambda: store.has("bronze/one"),
    ):
        store._quick, store._failures = broken(), 0
        with caplog.at_level(logging.WARNING):
            for _ in range(5):
                assert store._quick is not None
                assert not caplog.records
                # Of the same key, only the first one stores.
                work()
        assert store._quick is None
        assert "boto3 alone" in caplog.text
        caplog.clear()
    assert store.get("bronze/one") == b"1"


def test_one_failure_of_the_quick_client_among_successes_changes_nothing(store):
    assert store.put_new("bronze/one", b"1", {})
    store._failures = 4
    assert store.get("bronze/one") == b"1"
    assert store._failures == 0


def test_a_process_that_was_forked_asks_boto3(store):
    assert store.put_new("bronze/one", b"1", {})
    store._made_in -= 1
    assert store._usable() is None
    assert store.get("bronze/one") == b"1"
    assert not store.put_new("bronze/one", b"1", {})


def test_settings_of_other_tools_in_the_environment_are_passed_over(servers, monkeypatch):
    monkeypatch.setenv("AWS_REQUEST_PAYER", "requester")
    location = S3Location(
        servers.s3_endpoint_url, servers.aws_access_key_id, servers.aws_secret_access_key
    )
    with ObjectStore(location, f"test-{os.getpid()}-payer") as store:
        store.ensure_bucket()
        assert store.put_new("bronze/one", b"1", {})
        assert store.get("bronze/one") == b"1"


def test_a_server_that_is_gone_is_said_by_boto3():
    gone = S3Location("http://127.0.0.1:9", "key", "secret")
    with ObjectStore(gone, "bucket") as store:
        with pytest.raises(EndpointConnectionError):
            store.get("bronze/one")
        with pytest.raises(EndpointConnectionError):
            store.put_new("bronze/one", b"1", {})
        assert store._quick is not None
