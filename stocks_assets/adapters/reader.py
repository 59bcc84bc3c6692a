"""The role that analysts connect as: it reads gold and silver, and nothing else."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import chain
from urllib.parse import parse_qsl, quote, urlencode, urlsplit

import psycopg
from psycopg.rows import scalar_row
from psycopg.sql import SQL, Composed, Identifier, Literal

from stocks_assets.adapters.warehouse import connect, where
from stocks_assets.errors import SettingsError, StackError

SCHEMAS = ("gold", "silver")

# What a role may do but read. What everybody may do does not count, as no other role may do less;
# nor does what is temporary, which is there while others make the role ready again.
_MORE_THAN_READING = """
    with wanted as (select * from pg_roles where rolname = %s),
    granted as (
        select relacl as acl, 'pg_class'::regclass as class, oid, 0 as number from pg_class
        union all
        select attacl, 'pg_class'::regclass, attrelid, attnum from pg_attribute
        union all
        select nspacl, 'pg_namespace'::regclass, oid, 0 from pg_namespace
        union all
        select datacl, 'pg_database'::regclass, oid, 0 from pg_database
        where datname = current_database()
        union all
        select defaclacl, 'pg_default_acl'::regclass, oid, 0 from pg_default_acl
    )
    select 'it is made for more than that' from wanted
    where rolsuper or rolcreaterole or rolcreatedb or rolbypassrls or rolreplication
        or rolname = current_user
    union all
    select 'it is a member of ' || roleid::regrole
    from pg_auth_members join wanted on member = wanted.oid
    union all
    select 'it owns ' || pg_describe_object(classid, objid, objsubid)
    from pg_shdepend join wanted on refobjid = wanted.oid and refclassid = 'pg_authid'::regclass
    where deptype = 'o'
        and dbid in (0, (select oid from pg_database where datname = current_database()))
        and classid <> 'pg_largeobject'::regclass
        and coalesce((pg_identify_object(classid, objid, objsubid)).schema, '') !~ '^pg_temp'
    union all
    select 'it may ' || lower(privilege_type) || ' on ' || pg_describe_object(class, oid, number)
    from granted, aclexplode(acl)
    where grantee = (select oid from wanted)
        and privilege_type in ('INSERT', 'UPDATE', 'DELETE', 'TRUNCATE', 'CREATE')
    limit 1
"""
# Large objects have no schema that could be closed: who may call these may fill the disk.
_MAKING_LARGE_OBJECTS = ("lo_creat(integer)", "lo_create(oid)", "lo_from_bytea(oid, bytea)")


@dataclass(frozen=True, slots=True)
class Reader:
    """The role, its password, and for how many seconds a statement of its may run; 0: any time."""

    role: str
    password: str = field(repr=False)
    timeout_seconds: int

    def url(self, database_url: str) -> str:
        """Return the URL with which the role reaches the same database, password included."""
        return _as_user(database_url, f"{quote(self.role)}:{quote(self.password, safe='')}")

    def prepare(
        self, database_url: str, *, owns_password: bool, makers: Sequence[str] = ()
    ) -> None:
        """Make the role, and let it read all that is in gold and silver, now and later.

        What is in place is left alone. `owns_password` says that the role's password may be set
        where it is another one, as nobody else goes by it. `makers` are the URLs of further users
        who make tables there.

        Raises:
            SettingsError: the role is one that may do more, or its password is another one.
            StackError: the user of `database_url` may not do it; the message says what to run.
        """
        with connect(database_url) as connection:
            self._make(connection)
            self._limit(connection)
            # Each is found when those before it have been run.
            for statement in chain(
                self._grants(connection), self._later_grants(connection), self._closed(connection)
            ):
                _run(connection, [statement])
        for url in makers:
            with connect(url) as connection:
                for statement in chain(self._unread(connection), self._later_grants(connection)):
                    _run(connection, [statement])
        if not self._connects(database_url):
            if owns_password:
                with connect(database_url) as connection:
                    statement = SQL("alter role {} login password {}").format(
                        Identifier(self.role), self._encrypted_password(connection)
                    )
                    _run(connection, [statement])
            if not owns_password or not self._connects(database_url):
                raise SettingsError(
                    f"the role {self.role!r} is on the server at {where(database_url)}, but does "
                    "not come in with the password that is known here; set STOCKS_READER_PASSWORD "
                    "to its password, or STOCKS_READER_ROLE to another role"
                )

    def _make(self, connection: psycopg.Connection) -> None:
        more = connection.execute(_MORE_THAN_READING, (self.role,)).fetchone()
        if more is not None:
            raise SettingsError(
                f"STOCKS_READER_ROLE={self.role!r} cannot be used: that role may do more than read:"
                f" {more[0]}; choose the name of another one, or one that is not there yet"
            )
        if not _asks(
            connection, "select exists (select from pg_roles where rolname = %s)", self.role
        ):
            create = SQL("create role {} login password ").format(Identifier(self.role))
            # Two commands may come here at once.
            with suppress(psycopg.errors.DuplicateObject):
                _run(
                    connection,
                    [create + self._encrypted_password(connection)],
                    named=[create + SQL("'...'"), *self._limits(connection)],
                    then="and set STOCKS_READER_PASSWORD to that password",
                )

    def _encrypted_password(self, connection: psycopg.Connection) -> Composed:
        """Return the password as servers store it, so that none of their logs shows it."""
        encrypted = connection.pgconn.encrypt_password(
            self.password.encode(), self.role.encode(), b"scram-sha-256"
        )
        return SQL("{}").format(Literal(encrypted.decode()))

    def _settings(self) -> Mapping[str, str]:
        seconds = f"{self.timeout_seconds}s"
        return {
            "default_transaction_read_only": "on",
            "statement_timeout": seconds,
            # A transaction that is left open keeps gold from being built anew.
            "idle_in_transaction_session_timeout": seconds,
            "search_path": ", ".join(SCHEMAS),
        }

    def _limits(self, connection: psycopg.Connection) -> list[Composed]:
        return [
            SQL("alter role {} in database {} set {} = {}").format(
                Identifier(self.role),
                Identifier(connection.info.dbname),
                SQL(name),
                SQL(value) if name == "search_path" else Literal(value),
            )
            for name, value in self._settings().items()
        ]

    def _limit(self, connection: psycopg.Connection) -> None:
        row = connection.execute(
            "select setconfig from pg_db_role_setting "
            "join pg_database on pg_database.oid = setdatabase "
            "join pg_roles on pg_roles.oid = setrole "
            "where datname = current_database() and rolname = %s",
            (self.role,),
        ).fetchone()
        stored = set(row[0]) if row else set()
        if not {f"{name}={value}" for name, value in self._settings().items()} <= stored:
            _run(connection, self._limits(connection))

    def _grants(self, connection: psycopg.Connection) -> Iterator[Composed]:
        """Yield what lets the role read what is there and it may not read yet."""
        role = Identifier(self.role)
        database = connection.info.dbname
        if not _asks(
            connection, "select has_database_privilege(%s, %s, 'connect')", self.role, database
        ):
            yield SQL("grant connect on database {} to {}").format(Identifier(database), role)
        for schema in SCHEMAS:
            if not _asks(connection, "select to_regnamespace(%s) is not null", schema):
                # dbt would make it too, but when it does nobody would let the role in.
                yield SQL("create schema {}").format(Identifier(schema))
            if not _asks(
                connection, "select has_schema_privilege(%s, %s, 'usage')", self.role, schema
            ):
                yield SQL("grant usage on schema {} to {}").format(Identifier(schema), role)
        yield from self._unread(connection)

    def _unread(self, connection: psycopg.Connection) -> Iterator[Composed]:
        """Yield what lets the role read what this user owns and it may not read yet."""
        unread = connection.execute(
            "select nspname, relname from pg_class "
            "join pg_namespace on pg_namespace.oid = relnamespace "
            "where nspname = any(%s) and relkind = any('{r,p,v,m,f}') "
            "and pg_has_role(relowner, 'usage') "
            "and not has_table_privilege(%s, pg_class.oid, 'select') order by 1, 2",
            (list(SCHEMAS), self.role),
        ).fetchall()
        for schema, name in unread:
            yield SQL("grant select on {} to {}").format(
                Identifier(schema, name), Identifier(self.role)
            )

    def _later_grants(self, connection: psycopg.Connection) -> Iterator[Composed]:
        """Yield what lets the role read tables and views that this user is yet to make."""
        for schema in SCHEMAS:
            if not _asks(
                connection,
                "select exists (select from pg_default_acl, aclexplode(defaclacl) "
                "where defaclrole = current_user::regrole and defaclobjtype = 'r' "
                "and defaclnamespace = to_regnamespace(%s) and privilege_type = 'SELECT' "
                "and grantee = to_regrole(%s))",
                schema,
                self.role,
            ):
                yield SQL(
                    "alter default privileges in schema {} grant select on tables to {}"
                ).format(Identifier(schema), Identifier(self.role))

    def _closed(self, connection: psycopg.Connection) -> Iterator[Composed | SQL]:
        """Yield what takes from the role what everybody may, where this user can take it."""
        if not _asks(connection, "select rolsuper from pg_roles where rolname = current_user"):
            return
        for function in _MAKING_LARGE_OBJECTS:
            if _asks(
                connection, "select has_function_privilege(%s, %s, 'execute')", self.role, function
            ):
                yield SQL("revoke execute on function {} from public").format(SQL(function))

    def _connects(self, database_url: str) -> bool:
        try:
            with psycopg.connect(self.url(database_url), connect_timeout=10):
                return True
        except psycopg.OperationalError:
            return False


def url_without_password(database_url: str, role: str) -> str:
    """Return the URL with which `role` reaches the same database, its password left out."""
    return _as_user(database_url, quote(role))


def _as_user(database_url: str, user: str) -> str:
    parts = urlsplit(database_url)
    # Parameters could name another user, and would win.
    query = [(k, v) for k, v in parse_qsl(parts.query) if k not in ("user", "password")]
    netloc = f"{user}@{parts.netloc.rpartition('@')[2]}"
    return parts._replace(netloc=netloc, query=urlencode(query, quote_via=quote)).geturl()


def _asks(connection: psycopg.Connection, question: str, *parameters: str) -> bool:
    with connection.cursor(row_factory=scalar_row) as cursor:
        return bool(cursor.execute(question.encode(), parameters).fetchone())


def _run(
    connection: psycopg.Connection,
    statements: list[Composed | SQL] | list[Composed],
    *,
    named: list[Composed] | None = None,
    then: str = "",
) -> None:
    """Run `statements`; where that is not allowed, tell an administrator to run `named`."""
    try:
        with connection.transaction():
            for statement in statements:
                connection.execute(statement)
    except psycopg.errors.InsufficientPrivilege as error:
        wanted = "; ".join(one.as_string(connection) for one in named or statements)
        raise StackError(
            f"the role for analysts is not ready: {error.diag.message_primary}; "
            f"as an administrator run: {wanted}; {then}".rstrip("; ")
        ) from error
