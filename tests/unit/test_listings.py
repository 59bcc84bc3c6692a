from datetime import date

import polars as pl
import pytest

from stocks_assets.domain.listings import delisted_since, listed_since, successors
from stocks_assets.domain.payloads import SILVER_TABLES
from stocks_assets.domain.schemas import STILL_LISTED
from stocks_assets.errors import PayloadError

HEADER = "symbol,name,exchange,assetType,ipoDate,delistingDate,status"
LISTINGS = SILVER_TABLES["listings"]


def lists(active=(), delisted=()):
    return {
        "listings/active": "\r\n".join([HEADER, *active, ""]).encode(),
        "listings/delisted": "\r\n".join([HEADER, *delisted, ""]).encode(),
    }


def shape(active=(), delisted=()):
    return LISTINGS.shape("", lists(active, delisted))


def frame(*rows):
    """Rows of ticker, delisted_on, company_name, listed_on, and asset_type where it matters."""
    return pl.DataFrame(
        [
            {
                "ticker": ticker,
                "delisted_on": delisted_on or STILL_LISTED,
                "company_name": name,
                "exchange": "NYSE",
                "asset_type": kind[0] if kind else "Stock",
                "listed_on": listed_on,
                "status": "delisted" if delisted_on else "active",
            }
            for ticker, delisted_on, name, listed_on, *kind in rows
        ],
        schema_overrides={"company_name": pl.String, "listed_on": pl.Date},
    )


def test_a_listing_lasts_until_it_is_delisted():
    shaped = shape(
        active=["IBM,International Business Machines Corp,NYSE,Stock,1962-01-02,null,Active"],
        delisted=["FB,Meta Platforms Inc,NASDAQ,Stock,2012-05-18,2022-06-08,Delisted"],
    )
    assert shaped.rows.sort("ticker").select(*LISTINGS.columns, "dataset").rows() == [
        (
            "FB",
            date(2022, 6, 8),
            "Meta Platforms Inc",
            "NASDAQ",
            "Stock",
            date(2012, 5, 18),
            "delisted",
            "listings/delisted",
        ),
        (
            "IBM",
            STILL_LISTED,
            "International Business Machines Corp",
            "NYSE",
            "Stock",
            date(1962, 1, 2),
            "active",
            "listings/active",
        ),
    ]


def test_listings_are_of_the_market_and_whole_with_both_lists():
    assert LISTINGS.is_of_market
    assert not SILVER_TABLES["weekly_bars"].is_of_market
    active, delisted = "A,A,NYSE,Stock,,null,Active", "B,B,NYSE,Stock,,2020-01-02,Delisted"
    assert shape([active], [delisted]).is_whole
    assert not shape([active]).is_whole
    only = {"listings/active": lists([active])["listings/active"]}
    assert not LISTINGS.shape("", only).is_whole


def test_what_a_list_does_not_say_is_null():
    row = shape(["A,null,,null,,null,Active"]).rows.row(0, named=True)
    assert [row[name] for name in ("company_name", "exchange", "asset_type", "listed_on")] == (
        [None] * 4
    )


def test_tickers_are_written_in_capitals_and_what_is_none_is_set_apart():
    shaped = shape(
        [
            "brk.b,Berkshire,NYSE,Stock,,null,Active",
            "-P-HIZ,Preferred,NYSE,Stock,,null,Active",
            ",Nameless,NYSE,Stock,,null,Active",
        ]
    )
    assert shaped.rows["ticker"].to_list() == ["BRK.B"]
    assert shaped.rejected["rules"].to_list() == [["ticker|nullability"]] * 2


def test_a_company_with_a_comma_in_its_name_is_read_where_it_is_quoted():
    shaped = shape(['A,"Windle, Lark & Co",NYSE,Stock,,null,Active'])
    assert shaped.rows["company_name"].to_list() == ["Windle, Lark & Co"]


@pytest.mark.parametrize(
    "line",
    [
        "B,Windle, Lark & Co,NYSE,Stock,1999-01-04,null,Active",
        "B,Windle,NYSE",
        "B,Windle,NYSE,Stock,1999-01-04,null,Delisted",
        "B,Windle,NYSE,Stock,1999-01-04,null,Suspended",
    ],
)
def test_a_line_that_is_no_line_of_its_list_costs_no_other(line):
    shaped = shape(["A,A,NYSE,Stock,,null,Active", line, "C,C,NYSE,Stock,,null,Active"])
    assert shaped.rows["ticker"].to_list() == ["A", "C"]
    assert shaped.rejected["dataset"].to_list() == ["listings/active"]
    assert '"symbol": "B"' in shaped.rejected["row_values"][0]


@pytest.mark.parametrize("delisting", ["null", "2020-02-30", "9999-12-31"])
def test_a_delisted_ticker_without_its_end_is_set_apart(delisting):
    shaped = shape(delisted=[f"A,A,NYSE,Stock,,{delisting},Delisted"])
    assert shaped.rows.is_empty()
    assert shaped.rejected.height == 1


def test_a_repeated_line_counts_once_and_a_contradicting_one_is_set_apart():
    first = "A,Alpha Inc,NYSE,Stock,1999-01-04,null,Active"
    other = "A,Omega Inc,NYSE,Stock,2005-01-03,null,Active"
    shaped = shape([first, first, other, first])
    assert shaped.rows["company_name"].to_list() == ["Alpha Inc"]
    assert shaped.rejected["rules"].to_list() == [["primary_key"]]
    assert "Omega" in shaped.rejected["row_values"][0]


def test_a_reused_ticker_has_a_row_for_each_security():
    shaped = shape(
        ["A,New Inc,NYSE,Stock,2020-01-02,null,Active"],
        ["A,Old Inc,NYSE,Stock,1999-01-04,2003-05-05,Delisted"],
    )
    assert shaped.rows["delisted_on"].to_list() == [STILL_LISTED, date(2003, 5, 5)]


@pytest.mark.parametrize(
    "body",
    [b"", b'{"Information": "..."}', b"symbol,name\r\nA,B\r\n", HEADER.encode() + b'\nA,"B,,,,,\n'],
)
def test_a_list_that_cannot_be_parsed_is_refused_as_a_whole(body):
    with pytest.raises(PayloadError, match="listings/active cannot be read"):
        LISTINGS.shape("", {"listings/active": body})


SINCE = date(2012, 5, 18)
GONE = date(2022, 6, 8)


def test_a_renamed_security_is_found_by_its_name_and_day_of_listing():
    listings = frame(
        ("FB", GONE, "META PLATFORMS, INC.", SINCE),
        ("META", None, "Meta Platforms Inc", SINCE),
        ("MSFT", None, "Microsoft Corp", date(1986, 3, 13)),
    )
    assert successors(listings) == {"FB": "META"}


@pytest.mark.parametrize(
    "successor",
    [
        ("META", None, "Meta Materials Inc", SINCE),
        ("META", None, "Meta Platforms Inc", date(2021, 1, 4)),
        ("META", None, "Meta Platforms Inc", None),
        ("META", None, "Meta Platforms Inc", SINCE, "ETF"),
        ("META", GONE, "Meta Platforms Inc", SINCE),
    ],
)
def test_another_security_is_no_successor(successor):
    assert successors(frame(("FB", GONE, "Meta Platforms Inc", SINCE), successor)) == {}


def test_nothing_is_said_where_more_than_one_ticker_would_do():
    name = "Meta Platforms Inc"
    two_now = frame(("FB", GONE, name, SINCE), ("M", None, name, SINCE), ("N", None, name, SINCE))
    two_then = frame(("A", GONE, name, SINCE), ("B", GONE, name, SINCE), ("M", None, name, SINCE))
    reused = frame(
        ("A", GONE, "One Inc", SINCE),
        ("A", date(2023, 1, 3), "Two Inc", SINCE),
        ("M", None, "One Inc", SINCE),
        ("N", None, "Two Inc", SINCE),
    )
    assert successors(two_now) == successors(two_then) == successors(reused) == {}


def test_a_ticker_that_is_listed_again_is_not_gone():
    listings = frame(
        ("A", GONE, "Alpha Inc", SINCE),
        ("A", None, "Omega Inc", GONE),
        ("B", None, "Alpha Inc", SINCE),
    )
    assert successors(listings) == {}
    assert delisted_since(listings) == {}
    assert listed_since(listings) == {"A": GONE, "B": SINCE}


def test_a_ticker_is_gone_since_its_last_delisting():
    listings = frame(
        ("A", date(2003, 5, 5), "Alpha Inc", SINCE),
        ("A", GONE, "Omega Inc", SINCE),
        ("B", None, "Beta Inc", SINCE),
    )
    assert delisted_since(listings) == {"A": GONE}


def test_an_empty_market_has_no_successors():
    nothing = shape().rows
    assert successors(nothing) == {}
    assert delisted_since(nothing) == {}
