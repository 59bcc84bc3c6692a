"""Which errors pass by themselves: a server that restarts or is overloaded, a broken connection."""

from collections.abc import Iterator

import adbc_driver_manager
import psycopg
import sqlalchemy.exc
from botocore.exceptions import ClientError, HTTPClientError
from botocore.exceptions import ConnectionError as StoreConnectionError

# Of PostgreSQL: connections, serialization and deadlocks, too many connections, locks, shutdown.
_STATES = ("08", "40", "53300", "55P03", "57P01", "57P02", "57P03")
# Of S3.
_BUSY = ("SlowDown", "Throttling", "ThrottlingException", "RequestTimeout", "TooManyRequests")


def is_transient(error: BaseException) -> bool:
    """Tell whether what failed may work if it is tried again in a moment."""
    return any(_passes(one) for one in _chain(error))


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    seen: set[int] = set()
    while error is not None and id(error) not in seen:
        seen.add(id(error))
        yield error
        error = error.__cause__ or error.__context__


def _passes(error: BaseException) -> bool:
    match error:
        case psycopg.Error():
            # Without a state it is the connection itself that failed.
            is_connection = isinstance(error, psycopg.OperationalError | psycopg.InterfaceError)
            state = error.sqlstate
            return state.startswith(_STATES) if state else is_connection
        case adbc_driver_manager.OperationalError():
            return not error.sqlstate or error.sqlstate.startswith(_STATES)
        case sqlalchemy.exc.OperationalError() | sqlalchemy.exc.InterfaceError():
            state = getattr(error.orig, "pgcode", None) or getattr(error.orig, "sqlstate", None)
            return not state or state.startswith(_STATES)
        case ClientError():
            status = error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0)
            code = error.response.get("Error", {}).get("Code")
            return status >= 500 or status == 429 or code in _BUSY
        case HTTPClientError() | StoreConnectionError() | ConnectionError() | TimeoutError():
            return True
    return False
