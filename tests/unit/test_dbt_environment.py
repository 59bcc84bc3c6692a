import os

import pytest

from stocks_assets.adapters.dbt_project import dbt_environment
from stocks_assets.adapters.warehouse import Warehouse


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
