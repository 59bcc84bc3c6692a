"""Market reports in the bucket: `reports/<date>/`, and the newest one as `reports/latest/`.

Each folder has the pages and, written last, `report.json`, which names them with their hashes.
"""

import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from datetime import UTC, date, datetime
from typing import Any

from botocore.exceptions import BotoCoreError, ClientError

from stocks_assets.adapters.object_store import ObjectStore
from stocks_assets.adapters.report.reading import (
    NEEDS,
    Page,
    page_reader,
    read_market,
    state_of,
)
from stocks_assets.adapters.report.rendering import (
    Cover,
    overview_of,
    render,
    rows_of,
)
from stocks_assets.adapters.warehouse import Warehouse
from stocks_assets.domain.report import (
    INDEX,
    TICKERS_IN_ONE_FILE,
    TICKERS_PER_FILE,
    Health,
    files_of,
    pack,
)
from stocks_assets.errors import StackError

PREFIX = "reports/"
LATEST = "latest"
_MANIFEST = "report.json"
_HTML = "text/html; charset=utf-8"
_DATED = re.compile(r"reports/(\d{4}-\d\d-\d\d)/[^/]+", re.ASCII)
# What a report is made of has names that lead nowhere else: they become files of who downloads it.
_FOLDER = re.compile(rf"\d{{4}}-\d\d-\d\d|{LATEST}", re.ASCII)
_FILE = re.compile(r"[a-z0-9][a-z0-9.-]*\.html")


@dataclass(frozen=True, slots=True)
class Report:
    """A report in the bucket: its pages with size and hash, the tickers with their pages.

    `session` is the last session that it has, none where gold has no prices; `state` is that of
    what it was made from; `ill` counts the tickers whose data ask for a look.
    """

    folder: str
    session: str | None
    made_at: str
    state: str
    files: Mapping[str, Mapping[str, Any]] = field(repr=False)
    pages: Mapping[str, str] = field(repr=False)
    ill: int

    @property
    def size(self) -> int:
        """The bytes of all pages."""
        return sum(int(file["bytes"]) for file in self.files.values())


class Reports:
    """The reports of a bucket; how many tickers share a file is as in `files_of`."""

    def __init__(
        self,
        store: ObjectStore,
        *,
        in_one_file: int = TICKERS_IN_ONE_FILE,
        per_file: int = TICKERS_PER_FILE,
    ) -> None:
        self._store = store
        self._in_one_file = in_one_file
        self._per_file = per_file

    def make(
        self, warehouse: Warehouse, now: datetime, *, keep: int, only_changed: bool = False
    ) -> Report | None:
        """Make the report of what gold has now, and return it; of older ones the newest are kept.

        `keep` counts the dated reports, this one included. With `only_changed`, none is made where
        it would say what the newest one says; None is returned then.

        Raises:
            StackError: gold is not built yet, or the bucket cannot be used.
        """
        if missing := warehouse.missing_relations(NEEDS):
            raise StackError(f"there is no {', no '.join(missing)} yet; make it: stocks refresh")
        try:
            self._store.ensure_bucket()
            with warehouse.lock(f"report {self._store.identity()}"):
                state = f"{_pages_version()} {state_of(warehouse, now)}"
                last = self._find(LATEST)
                if only_changed and last is not None and last.state == state:
                    return None
                made = self._make(warehouse, now, state)
                self._remove_old(keep)
                return made
        except (ClientError, BotoCoreError) as error:
            raise StackError(
                f"the bucket {self._store.bucket!r} cannot be used for reports: {error}"
            ) from error

    def _make(self, warehouse: Warehouse, now: datetime, state: str) -> Report:
        market = read_market(warehouse, now)
        files = files_of(market.tickers, in_one_file=self._in_one_file, per_file=self._per_file)
        pages = {ticker: name for name, tickers in files for ticker in tickers}
        cover = Cover(
            market.session,
            now,
            [
                (line["ticker"], line["company_name"], pages[line["ticker"]])
                for line in market.lines
            ],
        )
        day = (market.session or now.astimezone(UTC).date()).isoformat()
        health: dict[str, Health] = {}
        written: dict[str, dict[str, Any]] = {}

        def write(name: str, pages: Sequence[Page]) -> None:
            bundles = {page.ticker: pack(page.bundle) for page in pages}
            # The overview, which is the last, has a line of each ticker.
            shown = health if name == INDEX else {page.ticker: page.health for page in pages}
            overview = overview_of(market) if name == INDEX else None
            body = render(cover, name, rows_of(market, shown), bundles, overview)
            self._store.put_page([_key(folder, name) for folder in (day, LATEST)], body, _HTML)
            written[name] = {"bytes": len(body), "sha256": _sha256(body)}

        # One file is read while the one before is written.
        with page_reader(warehouse, market) as reader, ThreadPoolExecutor(1) as writer:
            writing: Future[None] | None = None
            for name, tickers in files:
                read = list(reader.pages(tickers))
                if writing is not None:
                    writing.result()
                health |= {page.ticker: page.health for page in read}
                writing = writer.submit(write, name, read)
            if writing is not None:
                writing.result()
        report = Report(
            folder=day,
            session=market.session.isoformat() if market.session else None,
            made_at=now.astimezone(UTC).isoformat(timespec="seconds"),
            state=state,
            files=written,
            pages=pages,
            ill=sum(not one.is_good for one in health.values()),
        )
        manifests = [_key(folder, _MANIFEST) for folder in (day, LATEST)]
        self._store.put_page(manifests, json.dumps(asdict(report)).encode(), "application/json")
        for folder in (day, LATEST):
            self._remove_others(folder, {*written, _MANIFEST})
        return report

    def find(self, day: date | None = None) -> Report:
        """Return the newest report, or the one of `day`.

        Raises:
            StackError: there is none, or the bucket cannot be used.
        """
        try:
            found = self._find(day.isoformat() if day else LATEST)
            days = self._days() if found is None else []
        except (ClientError, BotoCoreError) as error:
            raise StackError(
                f"the bucket {self._store.bucket!r} cannot be read: {error}"
            ) from error
        if found is None and day and days:
            raise StackError(
                f"there is no report of {day}; the {len(days)} there are go from {days[0]} to "
                f"{days[-1]}"
            )
        if found is None:
            raise StackError("there is no report yet; `stocks refresh` makes one")
        return found

    def page(self, report: Report, name: str) -> bytes:
        """Return a page of `report` as it was made.

        Raises:
            StackError: another report took its place in the meantime, or it cannot be read.
        """
        try:
            body = self._store.get(_key(report.folder, name))
        except (ClientError, BotoCoreError) as error:
            raise StackError(f"{_key(report.folder, name)} cannot be read: {error}") from error
        if _sha256(body) != report.files[name]["sha256"]:
            raise StackError(
                f"{_key(report.folder, name)} is of another report by now; try once more"
            )
        return body

    def url(self, report: Report, name: str) -> str:
        """Return where a page is; to read it takes the keys of the store."""
        return self._store.url(_key(report.folder, name))

    def _find(self, folder: str) -> Report | None:
        body = self._store.get_page(_key(folder, _MANIFEST))
        # Of another version, or no manifest at all: the next report takes its place.
        return parse_manifest(body) if body is not None else None

    def _remove_others(self, folder: str, names: set[str]) -> None:
        """Remove what an earlier, larger report of the same folder had."""
        for entry in list(self._store.entries(_key(folder, ""))):
            if entry.key.rpartition("/")[2] not in names:
                self._store.remove(entry)

    def _remove_old(self, keep: int) -> None:
        """Remove all dated reports but the newest `keep`; what is no report is left alone."""
        for day in self._days()[:-keep]:
            for entry in list(self._store.entries(_key(day, ""))):
                if _DATED.fullmatch(entry.key):
                    self._store.remove(entry)

    def _days(self) -> list[str]:
        """Return the days that have a report, oldest first."""
        keys = (entry.key for entry in self._store.entries(PREFIX))
        return sorted({match[1] for key in keys if (match := _DATED.fullmatch(key))})


def parse_manifest(body: bytes) -> Report | None:
    """Return the report that a manifest names; None where it is none that was made here.

    Whoever writes into the bucket may have written it, and its names become those of files.
    """
    try:
        found = Report(**json.loads(body))
        names = {INDEX, *found.pages.values()}
        is_one = (
            _FOLDER.fullmatch(found.folder) is not None
            and all(_FILE.fullmatch(name) for name in found.files)
            and names <= found.files.keys()
            and all({"bytes", "sha256"} <= file.keys() for file in found.files.values())
        )
    except (TypeError, ValueError, AttributeError):
        return None
    return found if is_one else None


def _pages_version() -> str:
    """Return what changes when pages would look different."""
    empty = render(Cover(None, datetime.min.replace(tzinfo=UTC), []), INDEX, {}, {}, None)
    return _sha256(empty)[:16]


def _key(folder: str, name: str) -> str:
    return f"{PREFIX}{folder}/{name}"


def _sha256(body: bytes) -> str:
    return hashlib.sha256(body).hexdigest()
