import psycopg
import pytest
import sqlalchemy.exc
from botocore.exceptions import ClientError, EndpointConnectionError, NoCredentialsError

from stocks_assets.adapters.transient import is_transient
from stocks_assets.errors import StackError


def refused(status, code="Any"):
    response = {"Error": {"Code": code}, "ResponseMetadata": {"HTTPStatusCode": status}}
    return ClientError(response, "GetObject")


def caused(cause):
    error = StackError("no connection")
    error.__cause__ = cause
    return error


@pytest.mark.parametrize(
    "error",
    [
        psycopg.OperationalError("server closed the connection unexpectedly"),
        psycopg.errors.AdminShutdown("terminating connection"),
        psycopg.errors.DeadlockDetected("deadlock"),
        psycopg.InterfaceError("the connection is closed"),
        sqlalchemy.exc.OperationalError("select 1", {}, Exception("gone")),
        EndpointConnectionError(endpoint_url="http://127.0.0.1:1"),
        refused(503, "SlowDown"),
        refused(500, "InternalError"),
        ConnectionResetError("reset"),
        caused(psycopg.OperationalError("connection refused")),
    ],
    ids=lambda error: type(error).__name__,
)
def test_what_passes_by_itself_is_worth_another_try(error):
    assert is_transient(error)


@pytest.mark.parametrize(
    "error",
    [
        psycopg.errors.UniqueViolation("duplicate key"),
        psycopg.errors.UndefinedTable("no such table"),
        psycopg.errors.DiskFull("no space left"),
        psycopg.errors.QueryCanceled("statement timeout"),
        psycopg.errors.InvalidPassword("no"),
        refused(403, "AccessDenied"),
        refused(404, "NoSuchKey"),
        NoCredentialsError(),
        ValueError("a mistake"),
        FileNotFoundError("gone"),
        StackError("no connection"),
    ],
    ids=lambda error: type(error).__name__,
)
def test_what_does_not_is_not(error):
    assert not is_transient(error)
