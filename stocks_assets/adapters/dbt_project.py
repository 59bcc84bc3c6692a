"""The dbt project: where it is, its manifest, and how dbt reaches the warehouse."""

import fcntl
import hashlib
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path

from psycopg.conninfo import conninfo_to_dict

from stocks_assets.adapters.dbt_lineage import (
    Lineage,
    column_lineage,
    store_lineage,
    stored_lineage,
)
from stocks_assets.adapters.warehouse import Warehouse
from stocks_assets.errors import StackError
from stocks_assets.settings import PROJECT_ROOT

PROJECT_DIR = PROJECT_ROOT / "dbt_project"
_TARGET = PROJECT_DIR / "target"
DBT_EXECUTABLE = str(Path(sys.executable).with_name("dbt"))
_CONNECTION = ("DBT_HOST", "DBT_PORT", "DBT_USER", "DBT_DBNAME")
_MANIFEST, _LINEAGE, _STAMP = "manifest.json", "lineage.json", "manifest.digest"
_KEPT_PARSES = 8
_SOURCES = ("*.sql", "*.yml", "*.md", "*.csv")
# What a process needs of its environment, its mark in the embedded stack among it; by name or first
# letters. The keys of the vendor, of the bucket and of Dagster's books are nothing to dbt.
_NEEDED = ("PATH", "HOME", "LANG", "TZ", "TMPDIR", "DO_NOT_TRACK", "STOCKS_STACK_PROCESS")
_NEEDED_BEGINNINGS = ("DBT_", "DAGSTER_DBT_", "PG", "PYTHON", "LC_", "LD_", "DYLD_", "SSL_")
# The SQL of a full refresh says what columns are made of; the other, how rows are added. It takes
# no server to compile, and hardly longer than parsing alone.
_COMPILE = (
    *("compile", "--quiet", "--no-use-colors", "--full-refresh"),
    *("--no-introspect", "--no-populate-cache"),
    *("--select", "resource_type:model", "resource_type:snapshot"),
    *("--exclude", "resource_type:test", "resource_type:unit_test"),
)


def ensure_manifest() -> Path:
    """Return the path of a manifest that is true to the project's files, compiling them if need be.

    A manifest names the database, so there is one for each that DBT_DBNAME names.

    Raises:
        StackError: dbt cannot compile the project.
    """
    target = _TARGET / os.environ.get("DBT_DBNAME", "stocks")
    manifest = target / _MANIFEST
    digest = project_digest()
    if _is_current(target, digest):
        return manifest
    target.mkdir(parents=True, exist_ok=True)
    with (target / ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not _is_current(target, digest):
            compiled = subprocess.run(
                [DBT_EXECUTABLE, *_COMPILE],
                cwd=PROJECT_DIR,
                env={
                    **part_of_dbt(os.environ),
                    "DBT_PROFILES_DIR": str(PROJECT_DIR),
                    "DBT_TARGET_PATH": str(target),
                    "DBT_LOG_PATH": str(target),
                },
                capture_output=True,
                text=True,
                check=False,
            )
            if compiled.returncode != 0:
                raise StackError(f"dbt cannot compile {PROJECT_DIR}: {compiled.stdout.strip()}")
            store_lineage(target / _LINEAGE, column_lineage(json.loads(manifest.read_bytes())))
            (target / _STAMP).write_text(digest)
    return manifest


def project_lineage() -> Lineage:
    """Return the column lineage that belongs to the manifest.

    Raises:
        StackError: dbt cannot compile the project.
    """
    return stored_lineage(ensure_manifest().with_name(_LINEAGE))


@contextmanager
def parse_cache(target: Path) -> Iterator[None]:
    """Start dbt in `target` from what it parsed last time for the same connection.

    dbt parses all anew, which costs seconds, when the connection is not the one of its last parse.
    """
    connection = [os.environ.get(name, "") for name in _CONNECTION]
    digest = hashlib.sha256("\0".join(connection).encode()).hexdigest()[:16]
    kept = _TARGET / f"partial_parse.{digest}.msgpack"
    parsed = target / "partial_parse.msgpack"
    with_manifest = _TARGET / os.environ.get("DBT_DBNAME", "stocks") / "partial_parse.msgpack"
    for source in (kept, with_manifest):
        if source.is_file():
            shutil.copyfile(source, parsed)
            break
    yield
    if parsed.is_file():
        copy = kept.with_suffix(f".{os.getpid()}")
        shutil.copyfile(parsed, copy)
        copy.replace(kept)
        parses = sorted(
            kept.parent.glob("partial_parse.*.msgpack"), key=lambda p: p.stat().st_mtime
        )
        for old in parses[:-_KEPT_PARSES]:
            old.unlink(missing_ok=True)


def _is_current(target: Path, digest: str) -> bool:
    names = (_MANIFEST, _LINEAGE, _STAMP)
    return all((target / name).is_file() for name in names) and (
        (target / _STAMP).read_text() == digest
    )


def project_digest() -> str:
    """Return a hash of all that the manifest, and so what gold holds, depends on."""
    digest = hashlib.sha256(version("dbt-core").encode())
    for pattern in _SOURCES:
        for path in sorted(PROJECT_DIR.rglob(pattern)):
            relative = path.relative_to(PROJECT_DIR)
            if relative.parts[0] not in ("target", "logs", "dbt_packages"):
                digest.update(f"\0{relative}\0".encode() + path.read_bytes())
    return digest.hexdigest()


def part_of_dbt(environment: Mapping[str, str]) -> dict[str, str]:
    """Return what of `environment` dbt is given."""
    return {
        name: value
        for name, value in environment.items()
        if name in _NEEDED or name.startswith(_NEEDED_BEGINNINGS)
    }


@contextmanager
def dbt_environment(warehouse: Warehouse, batch_id: str | None) -> Iterator[None]:
    """Let dbt, here and in a subprocess, reach `warehouse`; its sessions carry the batch's id.

    dbt takes connections from the environment alone, and dagster-dbt opens one in this process too.
    """
    parameters = {key: str(value) for key, value in conninfo_to_dict(warehouse.models_url).items()}
    wanted: Mapping[str, str] = {
        "DBT_HOST": parameters.get("host", "localhost"),
        "DBT_PORT": parameters.get("port", "5432"),
        "DBT_USER": parameters.get("user", ""),
        "DBT_PASSWORD": parameters.get("password", ""),
        "DBT_DBNAME": parameters["dbname"],
        # libpq takes these where the profile says nothing.
        **{
            f"PG{name.upper()}": parameters[name]
            for name in ("sslmode", "sslrootcert", "sslcert", "sslkey")
            if name in parameters
        },
        "PGOPTIONS": f"-c stocks.batch_id={batch_id}" if batch_id else "",
    }
    before = {name: os.environ.get(name) for name in wanted}
    os.environ.update(wanted)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value
