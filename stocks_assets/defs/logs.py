"""What runs log, as lines that programs read: with ticker, dataset and run, and without secrets.

dagster.yaml names `RunLog` as a handler of the instance, so every run of every process writes here.
"""

import json
import logging
import logging.handlers
import re
from collections.abc import Iterable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

from pydantic import SecretStr

from stocks_assets.errors import StackError
from stocks_assets.settings import Settings, read_settings
from stocks_assets.stack import secrets
from stocks_assets.stack.processes import turn_over

_BLANK = "***"
# Whatever was set: the key in a URL of the vendor, and passwords in URLs.
_PATTERNS = (
    re.compile(r"(?<=apikey=)[^&\s'\"]+", re.IGNORECASE),
    re.compile(r"(?<=://)[^/\s:@'\"]*:[^/\s@'\"]+(?=@)"),
)
# A shorter secret may be a word that lines are made of.
_SHORTEST = 6
_PLAIN = re.compile(r"[^\s\"=]+")


class Redactor:
    """Blanks secrets out of texts."""

    def __init__(self, found: Iterable[str]) -> None:
        known = sorted({one for one in found if len(one) >= _SHORTEST}, key=len, reverse=True)
        self._known = re.compile("|".join(map(re.escape, known))) if known else None

    @classmethod
    def from_settings(cls, settings: Settings) -> "Redactor":
        """Return one that knows the secrets of the settings and of the embedded servers."""
        found = []
        for _, value in settings:
            if isinstance(value, SecretStr):
                secret = value.get_secret_value()
                password = urlsplit(secret).password if "://" in secret else None
                found += [password, unquote(password)] if password else [secret]
        if settings.alert_webhook_url is not None:
            found.append(settings.alert_webhook_url.get_secret_value())
        if secrets.path(settings.home).is_file():
            try:
                found += secrets.load(settings.home).values()
            except StackError:  # the start of the servers says so
                return cls(found)
        return cls(found)

    def __call__(self, text: str) -> str:
        """Return `text` without secrets."""
        for pattern in _PATTERNS:
            text = pattern.sub(_BLANK, text)
        return self._known.sub(_BLANK, text) if self._known else text


class LineFormatter(logging.Formatter):
    """Makes one line of a record: a JSON object, or `key=value` pairs."""

    def __init__(self, *, as_json: bool, redact: Redactor) -> None:
        super().__init__()
        self._as_json = as_json
        self._redact = redact

    def format(self, record: logging.LogRecord) -> str:
        """Return the line."""
        fields = {key: self._redact(value) for key, value in _fields(record).items()}
        if self._as_json:
            return json.dumps(fields, ensure_ascii=False)
        return " ".join(f"{key}={_quoted(value)}" for key, value in fields.items())


class RunLog(logging.handlers.WatchedFileHandler):
    """Appends lines to a file that many processes share; one that is too long is moved aside."""

    def __init__(self, filename: str) -> None:
        turn_over(Path(filename))
        super().__init__(filename, encoding="utf-8", delay=True)
        _set_up(self)


class RunLines(logging.StreamHandler[Any]):
    """Writes lines to standard error, for containers."""

    def __init__(self) -> None:
        super().__init__()
        _set_up(self)


def _set_up(handler: logging.Handler) -> None:
    settings = read_settings()
    as_json, redact = settings.log_format == "json", Redactor.from_settings(settings)
    handler.setFormatter(LineFormatter(as_json=as_json, redact=redact))
    handler.addFilter(is_worth_a_line)


def is_worth_a_line(record: logging.LogRecord) -> bool:
    """Tell whether people or their programs look for it: what is said, and what is made."""
    event = getattr(record, "dagster_meta", {}).get("dagster_event")
    is_made = event is not None and event.event_type_value == "ASSET_MATERIALIZATION"
    return is_made or record.levelno >= logging.INFO


def _fields(record: logging.LogRecord) -> dict[str, str]:
    """Return what a line says, without what there is not."""
    meta: dict[str, Any] = getattr(record, "dagster_meta", {})
    event = meta.get("dagster_event")
    dataset, ticker = getattr(record, "dataset", None), getattr(record, "ticker", None)
    data = getattr(event, "event_specific_data", None)
    # Of events that Dagster writes itself: which asset, which partition.
    about = getattr(data, "materialization", None) or getattr(data, "asset_observation", None)
    if about is not None and about.asset_key is not None:
        dataset, ticker = about.asset_key.to_user_string(), about.partition
    error = getattr(data, "error", None)
    message = str(meta.get("orig_message") or record.getMessage())
    found = {
        "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
        "level": record.levelname.lower(),
        "run": meta.get("run_id"),
        "job": meta.get("job_name"),
        "step": meta.get("step_key"),
        "dataset": dataset,
        "ticker": ticker,
        "event": event.event_type_value if event is not None else None,
        "message": message,
        "error": error.to_string() if error is not None else None,
    }
    return {key: str(value) for key, value in found.items() if value}


def _quoted(value: str) -> str:
    return value if _PLAIN.fullmatch(value) else json.dumps(value, ensure_ascii=False)
