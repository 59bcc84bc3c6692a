"""What names a report in the bucket: nothing that leads out of the folder it is downloaded to."""

import json
from dataclasses import asdict

import pytest

from stocks_assets.adapters.report.storing import Report, parse_manifest

FILE = {"bytes": 4, "sha256": "0" * 64}
GOOD = Report(
    folder="2026-03-04",
    session="2026-03-04",
    made_at="2026-03-05T03:00:00+00:00",
    state="as it was",
    files={"index.html": FILE, "tickers-001.html": FILE},
    pages={"IBM": "tickers-001.html"},
    ill=0,
)


def manifest(**other: object) -> bytes:
    return json.dumps({**asdict(GOOD), **other}).encode()


def test_what_was_made_is_found():
    assert parse_manifest(manifest()) == GOOD
    assert parse_manifest(manifest(folder="latest", session=None)).folder == "latest"


@pytest.mark.parametrize(
    "folder",
    ["", ".", "..", "/etc", "../x", "2026-03-04/..", "2026-03-04\n", "٢٠٢٦-03-04", None, 4],
)
def test_a_folder_that_leads_elsewhere_is_of_no_report(folder):
    assert parse_manifest(manifest(folder=folder)) is None


@pytest.mark.parametrize(
    "name",
    [
        "/home/me/.bashrc",
        "../index.html",
        "a/b.html",
        "a\\b.html",
        ".html",
        ".hidden.html",
        "index.html\n",
        "run.sh",
        "",
    ],
)
def test_a_file_that_leads_elsewhere_is_of_no_report(name):
    assert parse_manifest(manifest(files={"index.html": FILE, name: FILE})) is None


@pytest.mark.parametrize(
    "other",
    [
        {"pages": {"IBM": "another.html"}},
        {"pages": {"IBM": ["index.html"]}},
        {"files": {"tickers-001.html": FILE}},
        {"files": {"index.html": {}, "tickers-001.html": {}}},
        {"files": ["index.html", "tickers-001.html"]},
        {"more": 1},
    ],
)
def test_what_does_not_fit_together_is_no_report(other):
    assert parse_manifest(manifest(**other)) is None


@pytest.mark.parametrize("body", [b"", b"[]", b"null", b"{}", b"\xff", b'"text"'])
def test_what_is_no_manifest_is_no_report(body):
    assert parse_manifest(body) is None
