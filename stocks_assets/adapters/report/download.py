"""A report from the bucket as files here, opened in the browser."""

import os
import sys
import tempfile
import webbrowser
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from urllib.parse import quote

from stocks_assets.adapters.report.storing import Report, Reports
from stocks_assets.domain.report import INDEX
from stocks_assets.errors import SettingsError


@dataclass(frozen=True, slots=True)
class Opened:
    """A page on this machine, and the URL that shows what was asked for."""

    path: Path
    url: str


def parse_day(text: str) -> date:
    """Return the date that `text` gives as YYYY-MM-DD.

    Raises:
        SettingsError: it gives none.
    """
    try:
        return date.fromisoformat(text)
    except ValueError:
        raise SettingsError(f"{text!r} is no date; give one such as 2026-03-04") from None


def download(reports: Reports, report: Report, target: Path, ticker: str | None = None) -> Opened:
    """Write the pages of `report` to `target` and return the one to open.

    `target` is a folder; a report that is one file may be given the name of one, ending in .html.

    Raises:
        SettingsError: the report has no such ticker, or it cannot be written there.
        StackError: a page cannot be read.
    """
    if ticker is not None and ticker not in report.pages:
        raise SettingsError(
            f"the report of {report.session} has no ticker {ticker!r}; it has those that gold has "
            "prices of: stocks tickers list"
        )
    is_file = target.suffix.lower() in (".html", ".htm") and not target.is_dir()
    if is_file and len(report.files) > 1:
        raise SettingsError(
            f"the report has {len(report.files)} files, as it has many tickers: name a folder"
        )
    names = {name: target if is_file else target / name for name in report.files}
    try:
        for name, path in names.items():
            path.parent.mkdir(parents=True, exist_ok=True)
            _put(path, reports.page(report, name))
    except OSError as error:
        reason = error.strerror or error
        raise SettingsError(f"{str(target)!r} cannot be written: {reason}") from error
    page = names[INDEX] if ticker is None else names[report.pages[ticker]]
    fragment = "" if ticker is None else f"#/{quote(ticker, safe='')}"
    return Opened(names[INDEX], page.absolute().as_uri() + fragment)


def _put(path: Path, body: bytes) -> None:
    """Write `body` to `path`, which is replaced when all of it is there."""
    with tempfile.NamedTemporaryFile(dir=path.parent, prefix=f".{path.name}.", delete=False) as new:
        aside = Path(new.name)
        try:
            new.write(body)
            new.close()
            aside.chmod(0o644)
            aside.replace(path)
        except BaseException:
            aside.unlink(missing_ok=True)
            raise


def open_in_browser(url: str) -> bool:
    """Open `url` in the user's browser; tell whether there is one that can show it.

    A browser for terminals would take this one over, and show nothing without scripts.
    """
    if sys.platform == "linux" and not (
        os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY")
    ):
        if "BROWSER" not in os.environ:
            return False
    try:
        return webbrowser.open(url)
    except webbrowser.Error:
        return False
