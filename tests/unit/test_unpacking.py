"""What objects are unpacked to: the same as the standard library does, and no more than allowed."""

import gzip
import io

import pytest

from stocks_assets.adapters.object_store import unpacked

BODY = b'{"Symbol": "AAPL"}' * 1000
PACKED = gzip.compress(
    BODY, mtime=0
)  # without a time: each of the session's processes has the same bytes


@pytest.mark.parametrize(
    "packed",
    [
        pytest.param(b"", id="empty"),
        pytest.param(gzip.compress(b"", mtime=0), id="nothing packed"),
        pytest.param(PACKED, id="one member"),
        pytest.param(PACKED + PACKED, id="two members"),
        pytest.param(PACKED + b"\0" * 512, id="padded at the end"),
        pytest.param(
            PACKED + b"\0\0" + gzip.compress(b"more", mtime=0), id="padded between members"
        ),
    ],
)
def test_sound_objects_come_as_from_the_standard_library(packed):
    with gzip.GzipFile(fileobj=io.BytesIO(packed)) as file:
        assert unpacked(packed, 10 * len(BODY)) == file.read()


@pytest.mark.parametrize(
    ("packed", "error"),
    [
        pytest.param(b"not packed", gzip.BadGzipFile, id="not packed"),
        pytest.param(PACKED + b"left over", gzip.BadGzipFile, id="more after the end"),
        pytest.param(PACKED[:-1], EOFError, id="last byte missing"),
        pytest.param(PACKED[: len(PACKED) // 2], EOFError, id="half"),
        pytest.param(PACKED + PACKED[:7], EOFError, id="second member's header cut"),
        pytest.param(
            PACKED[:-8] + b"\1\2\3\4" + PACKED[-4:], gzip.BadGzipFile, id="wrong checksum"
        ),
    ],
)
def test_damaged_objects_are_refused(packed, error):
    with pytest.raises(error):
        unpacked(packed, 10 * len(BODY))


def test_an_object_has_no_more_than_it_may():
    assert unpacked(PACKED, len(BODY)) == BODY
    for packed in (PACKED, PACKED[:-8]):
        with pytest.raises(gzip.BadGzipFile, match="more than 17,999 bytes"):
            unpacked(packed, len(BODY) - 1)
    with pytest.raises(gzip.BadGzipFile, match="more than"):
        unpacked(PACKED + PACKED, len(BODY))
