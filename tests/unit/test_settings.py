"""Settings: what a plain environment gives, what each bad value comes to, and what stays secret."""

import os
from datetime import date
from pathlib import Path

import pytest

from stocks_assets.errors import SettingsError
from stocks_assets.settings import PROJECT_ROOT, Settings, read_settings

SECRET = "s3cret-of-mine"


@pytest.fixture(autouse=True)
def plain_environment(monkeypatch):
    """Nothing of the developer's own: neither variables nor the project's `.env`."""
    for name in list(os.environ):
        if name.startswith(("STOCKS_", "AWS_", "ALPHA_VANTAGE_")):
            monkeypatch.delenv(name)
    monkeypatch.setenv("STOCKS_ENV_FILE", os.devnull)


def refusal(monkeypatch, name, value):
    monkeypatch.setenv(name, value)
    with pytest.raises(SettingsError) as refused:
        read_settings()
    text = str(refused.value)
    assert text.startswith(name)
    assert "\n" not in text
    return text


def test_without_any_variable_everything_has_a_default():
    settings = read_settings()
    assert settings.home == PROJECT_ROOT / ".stocks"
    assert settings.source == "sample"
    assert settings.bucket == "stocks-raw"
    assert settings.alpha_vantage_plan == "free"
    assert settings.aws_region == "us-east-1"
    unset = ("replay_dir", "replay_vintage", "alpha_vantage_api_key", "database_url")
    unset += ("universe_file",)
    unset += ("dagster_database_url", "s3_endpoint_url", "aws_access_key_id", "ui_port")
    assert {name: getattr(settings, name) for name in unset} == dict.fromkeys(unset)


def test_variables_that_only_look_like_settings_change_nothing(monkeypatch, tmp_path):
    before = read_settings()
    for name in Settings.model_fields:
        monkeypatch.setenv(name.upper(), "nonsense")
        if name.startswith("aws_"):
            monkeypatch.delenv(name.upper())
    monkeypatch.delenv("ALPHA_VANTAGE_API_KEY")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert read_settings() == before


def test_an_empty_variable_counts_as_none(monkeypatch):
    before = read_settings()
    for name in ("STOCKS_HOME", "STOCKS_SOURCE", "STOCKS_DATABASE_URL", "STOCKS_UI_PORT"):
        monkeypatch.setenv(name, "")
    assert read_settings() == before


def test_the_env_file_is_read_and_the_environment_wins(monkeypatch, tmp_path):
    file = tmp_path / ".env"
    file.write_text("STOCKS_BUCKET=from-file\nSTOCKS_SOURCE=replay\n")
    monkeypatch.setenv("STOCKS_ENV_FILE", str(file))
    monkeypatch.setenv("STOCKS_SOURCE", "alpha_vantage")
    settings = read_settings()
    assert (settings.bucket, settings.source) == ("from-file", "alpha_vantage")


def test_a_relative_path_in_the_file_is_the_same_from_every_folder(monkeypatch, tmp_path):
    file = tmp_path / "mine" / ".env"
    file.parent.mkdir()
    file.write_text(
        "STOCKS_HOME=.stocks-mine\nSTOCKS_REPLAY_DIR=~/recordings\n"
        "STOCKS_UNIVERSE_FILE=../universe.csv\nSTOCKS_BUCKET=mine\n"
    )
    monkeypatch.setenv("HOME", str(tmp_path / "me"))
    found = []
    for folder, named in ((tmp_path, "mine/.env"), (Path("/"), str(file))):
        monkeypatch.chdir(folder)
        monkeypatch.setenv("STOCKS_ENV_FILE", named)
        found.append(read_settings())
    assert found[0] == found[1]
    assert found[0].home == file.parent / ".stocks-mine"
    assert found[0].replay_dir == tmp_path / "me" / "recordings"
    assert found[0].universe_file.resolve() == tmp_path / "universe.csv"
    assert found[0].bucket == "mine"
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("STOCKS_HOME", "here")
    assert read_settings().home == tmp_path / "here"
    monkeypatch.delenv("STOCKS_HOME")
    file.write_text("STOCKS_HOME=~nobody-of-this-name/x\n")
    with pytest.raises(SettingsError, match="expected a path"):
        read_settings()


def test_good_values_are_taken_as_they_are_meant(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    values = {
        "STOCKS_HOME": "some/folder",
        "STOCKS_REPLAY_DIR": "~/recordings",
        "STOCKS_UNIVERSE_FILE": "my/universe.csv",
        "STOCKS_REPLAY_VINTAGE": "20240415",
        "STOCKS_DATABASE_URL": f"postgresql+psycopg2://u:{SECRET}%40@[::1]:6543/db?sslmode=prefer",
        "STOCKS_DAGSTER_DATABASE_URL": "postgres:///dagster?host=/run/postgresql",
        "STOCKS_S3_ENDPOINT_URL": "https://minio.example:9000",
        "HOME": str(tmp_path / "me"),
    }
    for name, value in values.items():
        monkeypatch.setenv(name, value)
    settings = read_settings()
    assert settings.home == Path.cwd() / "some/folder"
    assert settings.replay_dir == tmp_path / "me" / "recordings"
    assert settings.universe_file == tmp_path / "my" / "universe.csv"
    assert settings.replay_vintage == date(2024, 4, 15)
    assert settings.database_url.get_secret_value() == (
        f"postgresql://u:{SECRET}%40@[::1]:6543/db?sslmode=prefer"
    )
    assert settings.dagster_database_url.get_secret_value() == (
        "postgresql:///dagster?host=/run/postgresql"
    )
    assert settings.s3_endpoint_url == "https://minio.example:9000"


@pytest.mark.parametrize(
    ("name", "value", "advice"),
    [
        ("STOCKS_SOURCE", "nonsense", "'alpha_vantage', 'replay' or 'sample'"),
        ("STOCKS_SOURCE", "two\nlines", "'alpha_vantage', 'replay' or 'sample'"),
        ("STOCKS_ALPHA_VANTAGE_PLAN", "gold", "'free' or 'premium'"),
        ("STOCKS_REPLAY_VINTAGE", "notadate", "such as 2024-04-15"),
        ("STOCKS_REPLAY_VINTAGE", "1713139200", "such as 2024-04-15"),
        ("STOCKS_BUCKET", "A B", "3 to 63 small letters"),
        ("STOCKS_CURATED_BUCKET", "x", "3 to 63 small letters"),
        ("STOCKS_READER_ROLE", "a reader", "small letters, digits and '_'"),
        ("STOCKS_READER_TIMEOUT_SECONDS", "-1", "greater than or equal to 0"),
        ("STOCKS_UI_PORT", "http", "valid integer"),
        ("STOCKS_UI_PORT", "99999", "less than or equal to 65535"),
        ("STOCKS_TICKERS_PER_RUN", "0", "greater than or equal to 1"),
        ("STOCKS_FETCH_THREADS", "1000", "less than or equal to 64"),
        ("STOCKS_TOLERATED_REJECTED_SHARE", "1%", "valid number"),
        ("STOCKS_TOLERATED_REJECTED_SHARE", "1.5", "less than or equal to 1"),
        ("STOCKS_HOME", __file__, "choose another home folder"),
        ("STOCKS_HOME", "~nobody-of-this-name/x", "expected a path"),
        ("STOCKS_UNIVERSE_FILE", "~nobody-of-this-name/x", "expected a path"),
        ("STOCKS_ALPHA_VANTAGE_URL", "www.alphavantage.co", "http://host:port"),
    ],
)
def test_a_value_that_cannot_be_used_is_named_with_what_is_expected(
    monkeypatch, name, value, advice
):
    text = refusal(monkeypatch, name, value)
    assert advice in text
    if not name.endswith("URL"):
        assert repr(value) in text


@pytest.mark.parametrize(
    "url",
    [
        "nonsense",
        f"mysql://u:{SECRET}@host/db",
        f"postgresql://u:{SECRET}@host:port/db",
        f"postgresql://u:{SECRET}@host:99999/db",
        f"postgresql://u:{SECRET}@host:0/db",
        f"postgresql://u:{SECRET}@host:5432",
        f"postgresql://u:{SECRET}@host:5432/",
        f"postgresql://u:{SECRET}@host/db?nonsense=1",
        f"postgresql://u:{SECRET}@[::1/db",
        # A password with a sign that means something in URLs.
        f"postgresql://u:a@{SECRET}@host/db",
        f"postgresql://u:1/{SECRET}@host/db",
        f"postgresql://u:a#{SECRET}@host/db",
        f"postgresql://u:a?{SECRET}@host/db",
        f"postgresql://u:%{SECRET}@host/db",
    ],
)
def test_a_database_url_that_cannot_be_used_is_refused_without_being_shown(monkeypatch, url):
    text = refusal(monkeypatch, "STOCKS_DATABASE_URL", url)
    assert "expected postgresql://user:password@host:port/database" in text
    assert SECRET not in text


@pytest.mark.parametrize(
    "url",
    [
        "nonsense",
        "ftp://host",
        "http://",
        "http://host:port",
        "http://host:99999",
        "http://[::1",
        f"http://key:{SECRET}@host",
    ],
)
def test_an_s3_url_that_cannot_be_used_is_refused_without_being_shown(monkeypatch, url):
    text = refusal(monkeypatch, "STOCKS_S3_ENDPOINT_URL", url)
    assert "expected a URL such as http://host:port" in text
    assert SECRET not in text


@pytest.mark.parametrize(
    "url", ["nonsense", "ftp://host", "smtp://", "smtp://host:port", f"smtp://me:a/{SECRET}@host"]
)
def test_a_mail_server_that_cannot_be_used_is_refused_without_being_shown(monkeypatch, url):
    monkeypatch.setenv("STOCKS_ALERT_MAIL_TO", "me@example.com")
    text = refusal(monkeypatch, "STOCKS_ALERT_SMTP_URL", url)
    assert "expected smtp://user:password@host:port" in text
    assert SECRET not in text


@pytest.mark.parametrize(
    "token", ["short", "sixteen signs, é", "with spaces in it..", "line\nline" * 9]
)
def test_a_token_that_fits_no_header_is_refused_without_being_shown(monkeypatch, token):
    text = refusal(monkeypatch, "STOCKS_BUCKET_EVENTS_TOKEN", token)
    assert "expected 16 or more letters, digits and" in text
    assert token not in text


def test_every_bad_value_is_told_at_once_and_on_one_line(monkeypatch):
    monkeypatch.setenv("STOCKS_SOURCE", "nonsense")
    text = refusal(monkeypatch, "STOCKS_HOME", __file__)
    assert "STOCKS_SOURCE='nonsense'" in text


def test_secrets_are_not_seen_in_what_is_printed_of_settings(monkeypatch):
    names = ("ALPHA_VANTAGE_API_KEY", "AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY")
    for name in (*names, "AWS_SESSION_TOKEN"):
        monkeypatch.setenv(name, SECRET)
    for name in ("STOCKS_DATABASE_URL", "STOCKS_DAGSTER_DATABASE_URL"):
        monkeypatch.setenv(name, f"postgresql://u:{SECRET}@host/db")
    settings = read_settings()
    shown = [repr(settings), str(settings), settings.model_dump_json()]
    assert not [text for text in shown if SECRET in text]
    assert settings.aws_secret_access_key.get_secret_value() == SECRET

    monkeypatch.setenv("STOCKS_UI_PORT", "nonsense")
    with pytest.raises(SettingsError) as refused:
        read_settings()
    assert SECRET not in str(refused.value)
    assert refused.value.__cause__ is None
    assert refused.value.__suppress_context__


def test_the_example_names_every_setting():
    example = (PROJECT_ROOT / ".env.example").read_text()
    for field in Settings.model_fields.values():
        alias = field.validation_alias
        name = alias if isinstance(alias, str) else alias.choices[0]
        assert f"#{name}=" in example, name


# Secrets in files


def test_a_secret_may_be_in_a_file_and_wins_over_the_env_file(monkeypatch, tmp_path):
    file = tmp_path / "key"
    file.write_text(f"{SECRET}\n")
    (tmp_path / ".env").write_text("ALPHA_VANTAGE_API_KEY=another\n")
    monkeypatch.setenv("STOCKS_ENV_FILE", str(tmp_path / ".env"))
    monkeypatch.setenv("ALPHA_VANTAGE_API_KEY_FILE", str(file))
    url = tmp_path / "url"
    url.write_text("postgresql+psycopg://me:secret@host/db")
    monkeypatch.setenv("STOCKS_DATABASE_URL_FILE", str(url))
    settings = read_settings()
    assert settings.alpha_vantage_api_key.get_secret_value() == SECRET
    assert settings.database_url.get_secret_value() == "postgresql://me:secret@host/db"
    assert SECRET not in repr(settings)


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("ALPHA_VANTAGE_API_KEY", None, "No such file"),
        ("ALPHA_VANTAGE_API_KEY", b"\xff\xfe", "not in UTF-8"),
        ("AWS_ACCESS_KEY_ID", b"one", "is set as well"),
        ("STOCKS_BUCKET", b"mine", "STOCKS_BUCKET is no secret"),
    ],
)
def test_a_file_that_cannot_be_used_is_named(monkeypatch, tmp_path, name, content, said):
    file = tmp_path / "secret"
    if content is not None:
        file.write_bytes(content)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "two")
    text = refusal(monkeypatch, f"{name}_FILE", str(file))
    assert said in text


def test_a_bad_secret_in_a_file_is_not_shown(monkeypatch, tmp_path):
    file = tmp_path / "secret"
    file.write_text(f"mysql://{SECRET}")
    monkeypatch.setenv("STOCKS_DATABASE_URL_FILE", str(file))
    with pytest.raises(SettingsError) as refused:
        read_settings()
    assert SECRET not in str(refused.value)


def test_roles_without_their_owner_are_all_named(monkeypatch):
    monkeypatch.setenv("STOCKS_LOADER_DATABASE_URL", "postgresql://loader:secret@host/db")
    with pytest.raises(SettingsError, match=r"TRANSFORMER_DATABASE_URL and .*DAGSTER_DATABASE_URL"):
        read_settings()
    monkeypatch.setenv("STOCKS_TRANSFORMER_DATABASE_URL", "postgresql://dbt:secret@host/db")
    monkeypatch.setenv("STOCKS_DAGSTER_DATABASE_URL", "postgresql://dagster:secret@host/dagster")
    assert not read_settings().brings_database


def test_a_short_password_of_the_ui_is_refused(monkeypatch):
    assert "12 characters" in refusal(monkeypatch, "STOCKS_UI_PASSWORD", "short")
