"""Files that people drop into the inbox: where they lie, what they look like, what they say.

A file whose structure is wrong, or that could be read in two ways (the date 03/04/2024, the number
1,234), is refused whole, with what to mend. Any other value is taken as it stands: the rules of the
silver tables judge it, row by row.
"""

import csv
import gzip
import hashlib
import io
import json
import re
import zlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Self

import polars as pl

from stocks_assets.domain.datasets import (
    DROPPED_ACTIONS,
    DROPPED_DAILY_BARS,
    LARGEST_REPLY,
    Dataset,
)
from stocks_assets.domain.tickers import parse_ticker
from stocks_assets.errors import InvalidTickerError, PayloadError

INBOX = "inbox/"

Precedence = Literal["fill", "override"]
"""Whether a file fills what the vendor has not, or wins over the vendor."""

_OVERRIDE, _WITHDRAW = "override", "withdraw"
_SLUG_LENGTH = 40
_GZIP = b"\x1f\x8b"
_ROWS_AT_ONCE = 50_000
# No ticker, date or number is longer.
_LONGEST_VALUE = 100
_BYTES_PER_VALUE = 8
# Rows of values of that length make no object that is too large, in whatever writing.
_ROWS_THAT_FIT = 5_000

_TWO_READINGS = r"^\d{1,2}[/. -]\d{1,2}[/. -]\d{2,4}(\D.*)?$"
_TWO_SCALES = r"\d,\d"
_MIDNIGHT = r"^(.*\d)[T ]00:00(:00(\.0+)?)? ?(Z|[+-]\d\d:?\d\d)?$"
_IN_DIGITS = r"^([12]\d{3})(?:-(\d\d)-|/(\d\d)/|\.(\d\d)\.|(\d\d))(\d\d)$"


def _plain(header: str) -> str:
    """Return a header in small letters, without spaces and signs."""
    return re.sub(r"[\W_]+", "", header.lower())


def _headers(**fields: str) -> Mapping[str, str]:
    """Return the field of each plain header, from each field's other names."""
    return {
        plain: field
        for field, others in fields.items()
        for plain in (_plain(field), *others.split())
    }


@dataclass(frozen=True, slots=True)
class Kind:
    """What a file may be about.

    `headers` gives the field that a plain header stands for; of each group of `needed` a file has
    at least one field.
    """

    folder: str
    dataset: Dataset
    headers: Mapping[str, str]
    needed: Sequence[Sequence[str]]
    dates: Sequence[str]
    numbers: Sequence[str]

    def lacking(self, fields: Iterable[str]) -> list[str]:
        """Return what a file with `fields` lacks."""
        has = set(fields)
        return [group[0] for group in self.needed if has.isdisjoint(group)]


PRICES = Kind(
    "prices",
    DROPPED_DAILY_BARS,
    _headers(
        ticker="symbol tickersymbol",
        session_date="date day session tradedate tradingdate tradingday timestamp datetime",
        open="openprice o",
        high="highprice h",
        low="lowprice l",
        close="closeprice closelast c",
        volume="vol v",
        adjusted_close="adjclose closeadj adjcloseprice adjustedcloseprice",
        dividend_amount="dividend dividends div cashdividend exdividend",
        split_coefficient="split splits stocksplits splitratio splitfactor",
    ),
    needed=[[field] for field in ("session_date", "open", "high", "low", "close", "volume")],
    dates=["session_date"],
    numbers=[
        *("open", "high", "low", "close", "volume"),
        *("adjusted_close", "dividend_amount", "split_coefficient"),
    ],
)
ACTIONS = Kind(
    "actions",
    DROPPED_ACTIONS,
    _headers(
        ticker="symbol tickersymbol",
        ex_date="exdividenddate effectivedate date",
        action_type="action type",
        amount="value",
        dividend_amount="dividend dividends cashdividend",
        split_ratio="split splits stocksplits ratio splitfactor splitcoefficient",
        declaration_date="declareddate declared announcementdate",
        record_date="dateofrecord",
        payment_date="paydate payabledate",
    ),
    needed=[["ex_date"], ["action_type"], ["amount", "dividend_amount", "split_ratio"]],
    dates=["ex_date", "declaration_date", "record_date", "payment_date"],
    numbers=["amount", "dividend_amount", "split_ratio"],
)
KINDS = (PRICES, ACTIONS)
_KNOWN_HEADERS = PRICES.headers.keys() | ACTIONS.headers.keys()


@dataclass(frozen=True, slots=True)
class InboxPath:
    """Where a file lies: `inbox/[override/][prices/|actions/]<name>`, in folders of any depth.

    A file `inbox/withdraw/<path>` takes back what `inbox/<path>` said, whatever is in it. `source`
    is the key of the file whose rows are meant; `kind` is None where the folder does not tell it.
    """

    key: str
    source: str
    precedence: Precedence
    kind: Kind | None

    @classmethod
    def parse(cls, key: str) -> Self:
        """Return what the key of an object below `inbox/` says of its file."""
        below = key.removeprefix(INBOX)
        folder, _, rest = below.partition("/")
        if folder.lower() == _WITHDRAW and rest:
            below = rest
        folders = [folder.lower() for folder in below.split("/")[:-1]]
        precedence: Precedence = "override" if folders[:1] == [_OVERRIDE] else "fill"
        named = next(iter(folders[precedence == "override" :]), None)
        kind = next((kind for kind in KINDS if kind.folder == named), None)
        return cls(key, INBOX + below, precedence, kind)

    @staticmethod
    def is_file(key: str) -> bool:
        """Tell a file from a folder's mark and from hidden files: these stay where they are."""
        name = key.rpartition("/")[2]
        return bool(name) and not name.startswith(".")

    @property
    def withdraws(self) -> bool:
        """Whether the file takes back what another one said."""
        return self.key != self.source

    @property
    def part(self) -> str:
        """The part of its dataset that the file is: the same for the same path and no other."""
        path = self.source.removeprefix(INBOX)
        slug = re.sub(r"[^a-z0-9]+", "-", path.lower()).strip("-")[-_SLUG_LENGTH:].strip("-")
        mark = hashlib.sha256(path.encode()).hexdigest()[:8]
        return f"{slug}-{mark}" if slug else mark

    @property
    def stem(self) -> str:
        """The file's name without what tells its form."""
        return self._name.rpartition(".")[0]

    @property
    def form(self) -> str:
        """The end of the file's name, such as csv; `.gz` does not count."""
        return self._name.rpartition(".")[2].lower()

    @property
    def _name(self) -> str:
        return re.sub(r"\.gz$", "", self.source.rpartition("/")[2], flags=re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class DroppedFile:
    """What a file says: texts as they stand, null where there is none, in frames by ticker.

    `not_tickers` counts the rows whose ticker is none, by what stands there; `ignored` has the
    headers that mean nothing here.
    """

    dataset: Dataset
    rows: Mapping[str, pl.DataFrame]
    not_tickers: Mapping[str, int]
    ignored: Sequence[str]


def read_file(path: InboxPath, body: bytes, max_bytes: int) -> DroppedFile:
    """Read a file of at most `max_bytes`, which is also what it may unpack to.

    Raises:
        PayloadError: the file is refused; the message says why and what to mend.
    """
    if path.form not in _READERS:
        raise PayloadError(
            "its name ends neither in .csv, .json nor .parquet, with or without .gz; "
            "save it as one of these"
        )
    table = _READERS[path.form](_unpacked(body, max_bytes), max_bytes)
    kind = _kind(path, table)
    rows = _rows(kind, table)
    if rows.is_empty():
        raise PayloadError("it has no row; a file that takes rows back lies below inbox/withdraw/")
    _refuse_what_reads_in_two_ways(kind, rows)
    date = kind.dates[0]
    if rows.select(written_day(date).is_null().all()).item():
        raise PayloadError(f"no row has a {date} that can be read; write dates as 2024-04-15")
    by_ticker, not_tickers = _by_ticker(path, rows)
    for ticker, part in by_ticker.items():
        if part.height > _ROWS_THAT_FIT and len(payload(path, part)) > LARGEST_REPLY:
            raise PayloadError(
                f"its {part.height:,} rows of {ticker} make an object of more than "
                f"{LARGEST_REPLY:,} bytes; split it"
            )
    ignored = [*table.ignored, *(h for h, _ in table.columns if _plain(h) not in kind.headers)]
    return DroppedFile(
        kind.dataset, by_ticker, not_tickers, [header for header in ignored if header]
    )


def payload(path: InboxPath, rows: pl.DataFrame | None) -> bytes:
    """Return what bronze keeps of a file's rows of one ticker; None where the file has none."""
    document = {
        "source": path.source,
        "precedence": path.precedence,
        "rows": [] if rows is None else rows.to_dicts(),
    }
    return json.dumps(document, separators=(",", ":")).encode()


def written_day(field: str) -> pl.Expr:
    """The date of `field` in one of the forms that a file may use, null where it is none.

    They are 2024-04-15 with '-', '/', '.' or nothing in between, with or without a time that is
    midnight, and those with the month's English name: 15 Apr 2024, 15-April-2024, April 15, 2024.
    """
    text = pl.col(field).str.strip_chars().str.replace(_MIDNIGHT, "$1")
    digits = text.str.replace(_IN_DIGITS, "$1-$2$3$4$5-$6")
    words = text.str.replace_all(r"[-,\s]+", " ")
    return pl.coalesce(
        pl.when(text.str.contains(_IN_DIGITS)).then(digits.str.to_date("%Y-%m-%d", strict=False)),
        pl.when(words.str.contains(r"^\d\d? [A-Za-z]{3,9} [12]\d{3}$")).then(
            words.str.to_date("%d %B %Y", strict=False)
        ),
        pl.when(words.str.contains(r"^[A-Za-z]{3,9} \d\d? [12]\d{3}$")).then(
            words.str.to_date("%B %d %Y", strict=False)
        ),
    )


@dataclass(frozen=True, slots=True)
class _Table:
    """The columns of a file that have a known header, as texts, and the headers of the others."""

    columns: Sequence[tuple[str, pl.Series]]
    ignored: Sequence[str]


def _unpacked(body: bytes, max_bytes: int) -> bytes:
    if not body.startswith(_GZIP):
        return body
    try:
        with gzip.GzipFile(fileobj=io.BytesIO(body)) as file:
            unpacked = file.read(max_bytes + 1)
    except (OSError, EOFError, zlib.error) as error:
        raise PayloadError(
            f"it cannot be unpacked ({error}); compress it anew with gzip"
        ) from error
    if len(unpacked) > max_bytes:
        raise PayloadError(f"it unpacks to {too_large(max_bytes)}")
    return unpacked


def too_large(max_bytes: int) -> str:
    """Say of a size that it is above the limit, and the mend."""
    return f"more than {max_bytes:,} bytes; split it, or raise STOCKS_INBOX_MAX_MB"


def _read_csv(body: bytes, _: int) -> _Table:
    text = io.TextIOWrapper(io.BytesIO(body), encoding="utf-8-sig", newline="")
    lines = csv.reader(text, delimiter=_delimiter(body), skipinitialspace=True, strict=True)
    headers: list[str] = []
    rows: list[list[str]] = []
    parts: list[pl.DataFrame] = []
    try:
        for line in lines:
            if not any(map(str.strip, line)):
                continue
            if not headers:
                headers = line
                continue
            if any(map(str.strip, line[len(headers) :])):
                raise PayloadError(
                    f"line {lines.line_num} has more fields than the header; put values with a "
                    "separator in them into quotes"
                )
            rows.append(line)
            if len(rows) == _ROWS_AT_ONCE:
                parts.append(_csv_columns(headers, rows))
                rows = []
    except UnicodeDecodeError as error:
        raise PayloadError(f"line {lines.line_num + 1} is no UTF-8; save it as UTF-8") from error
    except csv.Error as error:
        raise PayloadError(f"line {lines.line_num} is no CSV: {error}") from error
    frame = pl.concat([*parts, _csv_columns(headers, rows)])
    return _Table(
        [(headers[int(place)], frame[place]) for place in frame.columns],
        [header for header in headers if _plain(header) not in _KNOWN_HEADERS],
    )


def _delimiter(body: bytes) -> str:
    """Return the separator that makes most known headers of the first line."""
    first = body.lstrip(b"\xef\xbb\xbf \r\n").partition(b"\n")[0].decode(errors="replace")

    def known(separator: str) -> int:
        return sum(_plain(header) in _KNOWN_HEADERS for header in first.split(separator))

    return max(",;\t|", key=known)


def _csv_columns(headers: Sequence[str], rows: Sequence[Sequence[str]]) -> pl.DataFrame:
    """Return the columns with a known header, named by their places: headers can be equal."""
    return pl.DataFrame(
        [
            _texts([row[place] if place < len(row) else None for row in rows]).alias(str(place))
            for place, header in enumerate(headers)
            if _plain(header) in _KNOWN_HEADERS
        ]
    )


def _read_json(body: bytes, _: int) -> _Table:
    try:
        document = json.loads(
            body.decode("utf-8-sig"), parse_int=str, parse_float=str, parse_constant=str
        )
    except UnicodeDecodeError as error:
        raise PayloadError(f"byte {error.start} is no UTF-8; save it as UTF-8") from error
    except (ValueError, RecursionError) as error:
        raise PayloadError(f"it is no JSON: {error}") from error
    rows = document.get("rows") if isinstance(document, dict) else document
    if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
        raise PayloadError(
            'it is neither an array of objects, such as [{"date": "2024-04-15", ...}, ...], nor an '
            'object {"rows": [...]} with such an array'
        )
    headers = list(dict.fromkeys(header for row in rows for header in row))
    return _Table(
        [
            (header, _texts([_json_text(row.get(header)) for row in rows]))
            for header in headers
            if _plain(header) in _KNOWN_HEADERS
        ],
        [header for header in headers if _plain(header) not in _KNOWN_HEADERS],
    )


def _json_text(value: Any) -> str | None:  # noqa: ANN401 # whatever JSON has
    if value is None:
        return None
    text = value if isinstance(value, str) else json.dumps(value)
    # Half of a character, as JSON can have it, is no text for anything else.
    return text if text.isascii() else text.encode(errors="replace").decode()


def _read_parquet(body: bytes, max_bytes: int) -> _Table:
    # It takes long to import, and Parquet is rare.
    import pyarrow as pa  # noqa: PLC0415
    import pyarrow.parquet as pq  # noqa: PLC0415

    try:
        file = pq.ParquetFile(pa.BufferReader(body))
        headers: list[str] = file.schema_arrow.names
        known = [header for header in headers if _plain(header) in _KNOWN_HEADERS]
        if file.metadata.num_rows * len(known) * _BYTES_PER_VALUE > max_bytes:
            raise PayloadError(f"it unpacks to {too_large(max_bytes)}")
        table = file.read(columns=known)
        columns = [
            (header, _parquet_texts(header, pl.Series(pl.from_arrow(column))))
            for header, column in zip(table.column_names, table.itercolumns(), strict=True)
        ]
    except (pa.ArrowException, OSError, ValueError, pl.exceptions.PolarsError) as error:
        said = (str(error).splitlines() or [type(error).__name__])[0]
        raise PayloadError(f"it is no Parquet that can be read: {said}") from error
    return _Table(columns, [header for header in headers if header not in known])


def _parquet_texts(header: str, values: pl.Series) -> pl.Series:
    kind = values.dtype
    if kind == pl.Datetime:
        return values.dt.to_string("%Y-%m-%d %H:%M:%S%.f")
    if kind.is_nested() or kind in (pl.Binary, pl.Object):
        raise PayloadError(
            f"its column {header!r} is of type {kind}; expected text, date or number"
        )
    return _texts(values.cast(pl.String))


def _texts(values: Sequence[str | None] | pl.Series) -> pl.Series:
    """Return texts without blanks around them, null where nothing is left."""
    stripped = pl.Series(values, dtype=pl.String).str.strip_chars()
    return stripped.set(stripped == "", None)


_READERS: Mapping[str, Callable[[bytes, int], _Table]] = {
    "csv": _read_csv,
    "json": _read_json,
    "parquet": _read_parquet,
}


def _kind(path: InboxPath, table: _Table) -> Kind:
    """Return what the folder says that the file is about, or else its columns.

    Raises:
        PayloadError: columns are missing.
    """
    plain = [_plain(header) for header, _ in table.columns]
    lacking = {
        kind.folder: kind.lacking(kind.headers[name] for name in plain if name in kind.headers)
        for kind in ([path.kind] if path.kind else KINDS)
    }
    fitting = [kind for kind in KINDS if lacking.get(kind.folder) == []]
    if len(fitting) == 1:
        return fitting[0]
    if fitting:
        raise PayloadError(
            "its columns can be prices and corporate actions; put it below inbox/prices/ or "
            "inbox/actions/"
        )
    has = ", ".join([*(header for header, _ in table.columns), *table.ignored][:20]) or "none"
    lacks = " or ".join(f"{', '.join(names)} ({folder})" for folder, names in lacking.items())
    raise PayloadError(f"it has no column {lacks}; its columns are: {has}")


def _rows(kind: Kind, table: _Table) -> pl.DataFrame:
    """Return the rows by the names of their fields, without empty ones.

    Raises:
        PayloadError: two columns are of the same field.
    """
    found: dict[str, tuple[str, pl.Series]] = {}
    for header, values in table.columns:
        field = kind.headers.get(_plain(header))
        if field in found:
            raise PayloadError(
                f"its columns {found[field][0]!r} and {header!r} both mean {field}; keep one"
            )
        if field is not None:
            found[field] = header, values
    fields = [field for field in dict.fromkeys(kind.headers.values()) if field in found]
    frame = pl.DataFrame([found[field][1].alias(field) for field in fields])
    is_empty = frame.select(pl.all_horizontal(pl.all().is_null())).to_series()
    return frame.filter(~is_empty) if is_empty.any() else frame


def _refuse_what_reads_in_two_ways(kind: Kind, rows: pl.DataFrame) -> None:
    def refuse(field: str, is_wrong: pl.Expr, why: str) -> None:
        wrong = rows.with_row_index("row", 1).filter(is_wrong).select("row", field).head(1)
        for row, value in wrong.iter_rows():
            shown = value[:_LONGEST_VALUE]
            raise PayloadError(f"row {row}: {field} {shown!r} {why}")

    for field in rows.columns:
        too_long = pl.col(field).str.len_chars() > _LONGEST_VALUE
        refuse(field, too_long, "... is too long to be a ticker, a date or a number")
    for field in kind.dates:
        if field in rows.columns:
            is_ambiguous = pl.col(field).str.contains(_TWO_READINGS)
            refuse(field, is_ambiguous, "can be two dates; write it as 2024-04-03 or 3 Apr 2024")
    for field in kind.numbers:
        if field in rows.columns:
            is_ambiguous = pl.col(field).str.contains(_TWO_SCALES)
            refuse(field, is_ambiguous, "can be two numbers; write it as 1234.5, without a comma")


def _by_ticker(
    path: InboxPath, rows: pl.DataFrame
) -> tuple[dict[str, pl.DataFrame], dict[str, int]]:
    """Part the rows by ticker, and count those whose ticker is none.

    Raises:
        PayloadError: no row has a ticker.
    """
    if "ticker" not in rows.columns:
        try:
            return {parse_ticker(path.stem.replace("~", "/")): rows}, {}
        except InvalidTickerError as error:
            raise PayloadError(
                f"it has no column ticker, and its name {path.stem!r} is no ticker; "
                "add the column, or name the file as IBM.csv"
            ) from error
    written = rows["ticker"].fill_null("")
    tickers = {text: ticker for text in written.unique() if (ticker := _ticker(text))}
    counts = written.filter(~written.is_in(list(tickers))).value_counts(sort=True)
    not_tickers: dict[str, int] = dict(counts.iter_rows())
    if not tickers:
        raise PayloadError(f"no row has a ticker; there stands {next(iter(not_tickers))!r}")
    parts = rows.with_columns(
        written.replace_strict(tickers, default=None, return_dtype=pl.String).alias("ticker")
    ).drop_nulls("ticker")
    by_ticker = parts.partition_by("ticker", as_dict=True, include_key=False)
    return {str(ticker): part for (ticker,), part in sorted(by_ticker.items())}, not_tickers


def _ticker(text: str) -> str | None:
    try:
        return parse_ticker(text)
    except InvalidTickerError:
        return None
