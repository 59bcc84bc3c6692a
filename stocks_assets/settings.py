"""Every setting, read in one place. `.env.example` lists them for people."""

import hashlib
import json
import os
import re
from datetime import date
from pathlib import Path
from typing import Any, Literal, Self, get_args
from urllib.parse import unquote, urlsplit

import psycopg
from psycopg.conninfo import conninfo_to_dict
from pydantic import (
    AliasChoices,
    Field,
    SecretStr,
    ValidationError,
    field_validator,
    model_validator,
)
from pydantic.fields import FieldInfo
from pydantic_settings import (
    BaseSettings,
    DotEnvSettingsSource,
    EnvSettingsSource,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
)

from stocks_assets.errors import SettingsError

PROJECT_ROOT = Path(__file__).resolve().parent.parent

SourceName = Literal["alpha_vantage", "replay", "sample"]
Launcher = Literal["in_process", "multiprocess", "celery", "kubernetes"]
_ROLE = re.compile(r"[a-z_][a-z0-9_]{0,62}")
# What may follow `Bearer` in a header, by RFC 6750.
_TOKEN = re.compile(r"[A-Za-z0-9._~+/=-]{16,}")


class _SecretFiles(EnvSettingsSource):
    """Secrets in files of their own, as orchestrators mount them: NAME_FILE is the path."""

    def __call__(self) -> dict[str, Any]:
        """Return the content of each file, without the line's end."""
        return {
            name: secret
            for field in self.settings_cls.model_fields.values()
            for name in _names(field)
            if (secret := self._read(field, name)) is not None
        }

    def _read(self, field: FieldInfo, name: str) -> str | None:
        variable = f"{name}_FILE"
        path = self.env_vars.get(variable)
        if not path:
            return None
        if SecretStr not in get_args(field.annotation):
            raise SettingsError(f"{variable} cannot be used: {name} is no secret, so set that")
        if self.env_vars.get(name):
            raise SettingsError(f"{variable} cannot be used: {name} is set as well; keep one")
        try:
            return Path(path).read_text(encoding="utf-8").rstrip("\r\n") or None
        except (OSError, UnicodeDecodeError) as error:
            said = error.strerror if isinstance(error, OSError) else "it is not in UTF-8"
            raise SettingsError(f"{variable}={path!r} cannot be used: {said}") from None


class _EnvFile(DotEnvSettingsSource):
    """A file in the form of `.env`, whose relative paths start from its own folder.

    It is read from wherever a command is run, and means the same.
    """

    def __call__(self) -> dict[str, Any]:
        """Return what the file says."""
        found = super().__call__()
        if not isinstance(self.env_file, (str, Path)):
            return found
        folder = Path(self.env_file).absolute().parent
        for field in self.settings_cls.model_fields.values():
            if Path in (field.annotation, *get_args(field.annotation)):
                for name in _names(field):
                    # Another user's home is told from a path later.
                    if name in found and not found[name].startswith("~"):
                        found[name] = folder / found[name]
        return found


class Settings(BaseSettings):
    """What the environment and its files of secrets say, or else a file in the form of `.env`."""

    model_config = SettingsConfigDict(env_ignore_empty=True, extra="ignore")

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Return where settings come from, the first one that has a name first."""
        del file_secret_settings
        assert isinstance(dotenv_settings, DotEnvSettingsSource)
        secrets = _SecretFiles(settings_cls, case_sensitive=True)
        file = _EnvFile(settings_cls, env_file=dotenv_settings.env_file)
        return init_settings, env_settings, secrets, file

    home: Path = Field(PROJECT_ROOT / ".stocks", validation_alias="STOCKS_HOME")
    source: SourceName = Field("sample", validation_alias="STOCKS_SOURCE")
    replay_dir: Path | None = Field(None, validation_alias="STOCKS_REPLAY_DIR")
    replay_vintage: date | None = Field(None, validation_alias="STOCKS_REPLAY_VINTAGE")
    alpha_vantage_api_key: SecretStr | None = Field(None, validation_alias="ALPHA_VANTAGE_API_KEY")
    alpha_vantage_plan: Literal["free", "premium"] = Field(
        "free", validation_alias="STOCKS_ALPHA_VANTAGE_PLAN"
    )
    calls_per_second: int | None = Field(None, validation_alias="STOCKS_CALLS_PER_SECOND", ge=0)
    calls_per_minute: int | None = Field(None, validation_alias="STOCKS_CALLS_PER_MINUTE", ge=0)
    calls_per_day: int | None = Field(None, validation_alias="STOCKS_CALLS_PER_DAY", ge=0)
    alpha_vantage_url: str = Field(
        "https://www.alphavantage.co/query", validation_alias="STOCKS_ALPHA_VANTAGE_URL"
    )
    database_url: SecretStr | None = Field(None, validation_alias="STOCKS_DATABASE_URL")
    loader_database_url: SecretStr | None = Field(
        None, validation_alias="STOCKS_LOADER_DATABASE_URL"
    )
    transformer_database_url: SecretStr | None = Field(
        None, validation_alias="STOCKS_TRANSFORMER_DATABASE_URL"
    )
    dagster_database_url: SecretStr | None = Field(
        None, validation_alias="STOCKS_DAGSTER_DATABASE_URL"
    )
    reader_role: str = Field("stocks_reader", validation_alias="STOCKS_READER_ROLE")
    reader_password: SecretStr | None = Field(None, validation_alias="STOCKS_READER_PASSWORD")
    reader_timeout_seconds: int = Field(
        300, validation_alias="STOCKS_READER_TIMEOUT_SECONDS", ge=0, le=24 * 3600
    )
    s3_endpoint_url: str | None = Field(None, validation_alias="STOCKS_S3_ENDPOINT_URL")
    bucket: str = Field("stocks-raw", validation_alias="STOCKS_BUCKET")
    curated_bucket: str = Field("stocks-curated", validation_alias="STOCKS_CURATED_BUCKET")
    aws_access_key_id: SecretStr | None = Field(None, validation_alias="AWS_ACCESS_KEY_ID")
    aws_secret_access_key: SecretStr | None = Field(None, validation_alias="AWS_SECRET_ACCESS_KEY")
    aws_session_token: SecretStr | None = Field(None, validation_alias="AWS_SESSION_TOKEN")
    aws_region: str = Field(
        "us-east-1", validation_alias=AliasChoices("AWS_REGION", "AWS_DEFAULT_REGION")
    )
    universe_file: Path | None = Field(None, validation_alias="STOCKS_UNIVERSE_FILE")
    alert_webhook_url: SecretStr | None = Field(None, validation_alias="STOCKS_ALERT_WEBHOOK_URL")
    alert_smtp_url: SecretStr | None = Field(None, validation_alias="STOCKS_ALERT_SMTP_URL")
    alert_mail_to: str | None = Field(None, validation_alias="STOCKS_ALERT_MAIL_TO")
    ui_url: str | None = Field(None, validation_alias="STOCKS_UI_URL")
    ui_password: SecretStr | None = Field(None, validation_alias="STOCKS_UI_PASSWORD")
    ui_port: int | None = Field(None, validation_alias="STOCKS_UI_PORT", ge=1, le=65535)
    launcher: Launcher = Field("in_process", validation_alias="STOCKS_LAUNCHER")
    celery_broker_url: SecretStr | None = Field(None, validation_alias="STOCKS_CELERY_BROKER_URL")
    celery_backend_url: SecretStr | None = Field(None, validation_alias="STOCKS_CELERY_BACKEND_URL")
    sample_first_session: date | None = Field(None, validation_alias="STOCKS_SAMPLE_FIRST_SESSION")
    sample_last_session: date | None = Field(None, validation_alias="STOCKS_SAMPLE_LAST_SESSION")
    tickers_per_run: int = Field(500, validation_alias="STOCKS_TICKERS_PER_RUN", ge=1)
    log_format: Literal["keyvalue", "json"] = Field(
        "keyvalue", validation_alias="STOCKS_LOG_FORMAT"
    )
    runs_at_once: int = Field(2, validation_alias="STOCKS_RUNS_AT_ONCE", ge=1, le=1000)
    intraday_months: int = Field(0, validation_alias="STOCKS_INTRADAY_MONTHS", ge=0, le=300)
    inbox_max_mb: int = Field(100, validation_alias="STOCKS_INBOX_MAX_MB", ge=1, le=2000)
    tolerated_rejected_share: float = Field(
        0.01, validation_alias="STOCKS_TOLERATED_REJECTED_SHARE", ge=0, le=1
    )
    event_days: int = Field(30, validation_alias="STOCKS_EVENT_DAYS", ge=1, le=36500)
    reports_kept: int = Field(30, validation_alias="STOCKS_REPORTS_KEPT", ge=1)
    ui_charts: bool = Field(True, validation_alias="STOCKS_UI_CHARTS")
    late_days: int = Field(3, validation_alias="STOCKS_LATE_DAYS", ge=0, le=3650)
    bucket_events_token: SecretStr | None = Field(
        None, validation_alias="STOCKS_BUCKET_EVENTS_TOKEN"
    )
    bucket_events_database_url: SecretStr | None = Field(
        None, validation_alias="STOCKS_BUCKET_EVENTS_DATABASE_URL"
    )
    register_arrivals: bool = Field(False, validation_alias="STOCKS_REGISTER_ARRIVALS")
    fetch_threads: int = Field(8, validation_alias="STOCKS_FETCH_THREADS", ge=1, le=64)

    @field_validator(
        "database_url",
        "loader_database_url",
        "transformer_database_url",
        "dagster_database_url",
        "bucket_events_database_url",
    )
    @classmethod
    def _is_postgres(cls, value: SecretStr | None) -> SecretStr | None:
        if value is None:
            return None
        scheme, separator, rest = value.get_secret_value().partition("://")
        # A driver's name is for SQLAlchemy; everything here speaks to PostgreSQL by itself.
        url = f"postgresql://{rest}"
        known = scheme.split("+")[0] in ("postgresql", "postgres")
        if not separator or not known or not _names_one_database(url):
            raise ValueError(
                "expected postgresql://user:password@host:port/database, "
                "with '@', ':', '/', '?', '#' and '%' in a password as %40, %3A, %2F, %3F, %23, %25"
            )
        return SecretStr(url)

    @field_validator("s3_endpoint_url", "alpha_vantage_url")
    @classmethod
    def _is_http(cls, value: str | None) -> str | None:
        if value is not None and not _names_one_server(value):
            raise ValueError("expected a URL such as http://host:port, without user and password")
        return value

    @field_validator("alert_webhook_url")
    @classmethod
    def _is_webhook(cls, value: SecretStr | None) -> SecretStr | None:
        if value and not _names_host(value.get_secret_value(), "http", "https"):
            raise ValueError("expected the URL of a webhook, https://..")
        return value

    @field_validator("alert_smtp_url")
    @classmethod
    def _is_mail_server(cls, value: SecretStr | None) -> SecretStr | None:
        if value and not _names_host(value.get_secret_value(), "smtp", "smtps"):
            raise ValueError("expected smtp://user:password@host:port, or smtps:// for TLS")
        return value

    @model_validator(mode="after")
    def _has_both_of_mail(self) -> Self:
        if (self.alert_smtp_url is None) != (self.alert_mail_to is None):
            raise ValueError("STOCKS_ALERT_SMTP_URL and STOCKS_ALERT_MAIL_TO go together")
        return self

    @model_validator(mode="after")
    def _has_all_roles_of_a_database(self) -> Self:
        lesser = {
            "STOCKS_LOADER_DATABASE_URL": self.loader_database_url,
            "STOCKS_TRANSFORMER_DATABASE_URL": self.transformer_database_url,
            "STOCKS_DAGSTER_DATABASE_URL": self.dagster_database_url,
        }
        if self.database_url is None and any(list(lesser.values())[:2]):
            missing = " and ".join(name for name, url in lesser.items() if url is None)
            if missing:
                raise ValueError(
                    f"{missing} cannot be left out where roles of a database are named "
                    "without its owner's STOCKS_DATABASE_URL"
                )
        return self

    @field_validator("ui_password")
    @classmethod
    def _is_a_password(cls, value: SecretStr | None) -> SecretStr | None:
        if value is not None and len(value.get_secret_value()) < 12:
            raise ValueError("expected 12 characters or more")
        return value

    @field_validator("bucket_events_token")
    @classmethod
    def _is_a_token(cls, value: SecretStr | None) -> SecretStr | None:
        if value is not None and not _TOKEN.fullmatch(value.get_secret_value()):
            raise ValueError("expected 16 or more letters, digits and '-._~+/='")
        return value

    @field_validator("celery_broker_url", "celery_backend_url")
    @classmethod
    def _is_redis(cls, value: SecretStr | None) -> SecretStr | None:
        parts = urlsplit(value.get_secret_value()) if value else None
        if parts and (parts.scheme not in ("redis", "rediss") or not parts.hostname):
            raise ValueError("expected redis://:password@host:port/0, or rediss:// for TLS")
        return value

    @model_validator(mode="after")
    def _has_broker(self) -> Self:
        if self.launcher == "celery" and self.celery_broker_url is None:
            raise ValueError("STOCKS_LAUNCHER=celery needs STOCKS_CELERY_BROKER_URL")
        return self

    @field_validator("replay_vintage", "sample_first_session", "sample_last_session", mode="before")
    @classmethod
    def _is_date(cls, value: object) -> object:
        # Left to itself pydantic takes 20240415 for seconds since 1970.
        try:
            return date.fromisoformat(value) if isinstance(value, str) else value
        except ValueError:
            raise ValueError("expected a date such as 2024-04-15") from None

    @field_validator("reader_role")
    @classmethod
    def _is_role(cls, value: str) -> str:
        if not _ROLE.fullmatch(value):
            raise ValueError(
                "expected up to 63 small letters, digits and '_', not beginning with a digit"
            )
        return value

    @field_validator("bucket", "curated_bucket")
    @classmethod
    def _is_bucket(cls, value: str) -> str:
        allowed = set("abcdefghijklmnopqrstuvwxyz0123456789.-")
        if not 3 <= len(value) <= 63 or not set(value) <= allowed:
            raise ValueError("expected 3 to 63 small letters, digits, '.' or '-'")
        return value

    @field_validator("home", "replay_dir", "universe_file")
    @classmethod
    def _is_absolute(cls, value: Path | None) -> Path | None:
        try:
            return value.expanduser().absolute() if value is not None else None
        except RuntimeError as error:
            raise ValueError(f"expected a path; {error}") from None

    @field_validator("home")
    @classmethod
    def _is_folder(cls, value: Path) -> Path:
        # What cannot be looked at cannot be written either: that is said where it is made.
        if os.path.lexists(value) and not os.path.isdir(value):  # noqa: PTH112
            raise ValueError("expected a folder, and this is none; choose another home folder")
        return value

    @property
    def brings_database(self) -> bool:
        """Whether the embedded PostgreSQL is used, as no setting names another one."""
        return self.database_url is None and self.loader_database_url is None

    def digest(self) -> str:
        """Return a hash of what processes that were started earlier may be behind in."""
        values = self.model_dump(mode="json", exclude={"ui_port"})
        secrets = {
            name: value.get_secret_value() for name, value in self if isinstance(value, SecretStr)
        }
        text = json.dumps(values | secrets, sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()


def env_file() -> Path:
    """Return which file has the settings that the environment has not, be it there or not."""
    return Path(os.environ.get("STOCKS_ENV_FILE") or PROJECT_ROOT / ".env").absolute()


def read_settings() -> Settings:
    """Return the settings, with `.env` of the project's folder, or the file STOCKS_ENV_FILE.

    Raises:
        SettingsError: one cannot be used; the message names it and says what is expected.
    """
    try:
        return Settings(_env_file=env_file())  # type: ignore[call-arg] # every field has a default, or its alias fills it
    except ValidationError as error:
        raise SettingsError("; ".join(_explain(problem) for problem in error.errors())) from None


def _names(field: FieldInfo) -> list[str]:
    """Return the variables that a setting is read from."""
    alias = field.validation_alias
    if isinstance(alias, AliasChoices):
        return [str(name) for name in alias.choices]
    return [str(alias)]


def _names_host(url: str, *schemes: str) -> bool:
    """Tell whether `url` has one of `schemes`, a host, and no port that is none."""
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:
        return False
    return parts.scheme in schemes and bool(parts.hostname) and port != 0


def _names_one_database(url: str) -> bool:
    """Tell whether every part of a database URL is what all who read it will take it for."""
    try:
        parts, parameters = urlsplit(url), conninfo_to_dict(url)
        port = parts.port
    except (ValueError, psycopg.ProgrammingError):
        return False
    name = parts.path.removeprefix("/")
    return (
        port != 0
        and parts.netloc.count("@") <= 1
        and not parts.fragment
        and bool(name)
        and not set(name) & set("/@")
        and parameters.get("dbname") == unquote(name)
    )


def _names_one_server(url: str) -> bool:
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:
        return False
    known = parts.scheme in ("http", "https")
    return known and bool(parts.hostname) and port != 0 and "@" not in parts.netloc


_SECRETS = ("KEY", "URL", "TOKEN", "SECRET", "PASSWORD")


def _explain(problem: object) -> str:
    assert isinstance(problem, dict)
    message = str(problem["msg"]).removeprefix("Value error, ")
    if not problem["loc"]:
        return message
    name = str(problem["loc"][0])
    if any(word in name for word in _SECRETS):
        return f"{name} cannot be used: {message}"
    return f"{name}={str(problem['input'])!r} cannot be used: {message}"
