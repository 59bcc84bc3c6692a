import os

import pytest
from pydantic import AliasChoices, SecretStr

from stocks_assets.adapters.dbt_project import PROJECT_DIR, dbt_environment
from stocks_assets.adapters.warehouse import Warehouse
from stocks_assets.defs.gold import Dbt
from stocks_assets.settings import Settings


def test_dbt_is_given_what_the_url_says_its_tls_parameters_included():
    url = "postgresql://me:s3cret@db.example:5433/prices?sslmode=verify-full&sslrootcert=/ca.pem"
    with dbt_environment(Warehouse(url), "batch-1"):
        given = {name: os.environ[name] for name in os.environ if name.startswith(("DBT_", "PG"))}
    assert (
        given.items()
        >= {
            "DBT_HOST": "db.example",
            "DBT_PORT": "5433",
            "DBT_USER": "me",
            "DBT_PASSWORD": "s3cret",
            "DBT_DBNAME": "prices",
            "PGSSLMODE": "verify-full",
            "PGSSLROOTCERT": "/ca.pem",
            "PGOPTIONS": "-c stocks.batch_id=batch-1",
        }.items()
    )


def test_the_environment_is_as_before_afterwards_whatever_happens(monkeypatch):
    monkeypatch.setenv("DBT_HOST", "mine")
    monkeypatch.delenv("DBT_PASSWORD", raising=False)
    before = dict(os.environ)
    with pytest.raises(RuntimeError), dbt_environment(Warehouse("postgresql://a:b@c/d"), None):
        raise RuntimeError
    assert dict(os.environ) == before


def test_dbt_is_given_its_own_password_and_no_secret_of_others(tmp_path, monkeypatch):
    names = {"STOCKS_DAGSTER_STORAGE_URL"}
    for field in Settings.model_fields.values():
        if SecretStr in getattr(field.annotation, "__args__", (field.annotation,)):
            alias = field.validation_alias
            names.update(alias.choices if isinstance(alias, AliasChoices) else [alias])
    assert names >= {"ALPHA_VANTAGE_API_KEY", "AWS_SECRET_ACCESS_KEY", "STOCKS_DATABASE_URL"}
    for name in names:
        monkeypatch.setenv(name, "of-others")
    program, seen = tmp_path / "dbt", tmp_path / "seen"
    program.write_text(f"#!/bin/sh\nenv > {seen}\n")
    program.chmod(0o700)
    folder = str(PROJECT_DIR)
    dbt = Dbt(project_dir=folder, profiles_dir=folder, dbt_executable=str(program))
    before = dict(os.environ)
    with dbt_environment(Warehouse("postgresql://me:my-own@127.0.0.1:1/d"), "batch-1"):
        dbt.cli(["run"], target_path=tmp_path).wait()
    assert dict(os.environ) == before
    given = seen.read_text()
    assert "of-others" not in given
    assert {"DBT_PASSWORD=my-own", "PGOPTIONS=-c stocks.batch_id=batch-1"} <= set(
        given.splitlines()
    )
    assert f"PATH={os.environ['PATH']}" in given.splitlines()
