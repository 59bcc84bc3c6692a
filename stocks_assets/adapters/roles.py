"""The roles in PostgreSQL that the work is done as: each may do what it needs, and no more.

| role | may |
|---|---|
| owner | make the tables: bronze's index, silver and ops, by migrations |
| loader | write what is in those tables, make schemas to load through, read gold |
| transformer | make gold and staging, as dbt; read silver and the batch that it builds |
| dagster | all in Dagster's own database, which no other role but the owner comes into |
| hinter | add to the hints of the bucket's events, for the web server; often Dagster's role |
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from urllib.parse import urlsplit

import psycopg
from psycopg.conninfo import conninfo_to_dict
from psycopg.rows import scalar_row
from psycopg.sql import SQL, Composed, Identifier, Literal

from stocks_assets.adapters.warehouse import connect, where
from stocks_assets.errors import SettingsError, StackError

_WRITE = ("select", "insert", "update", "delete", "truncate")
_READ = ("select",)
# What dbt makes there is the transformer's, whoever made it before there was such a role.
_MODELS = ("gold", "staging")
_BOOKS_OF_MODELS = ("gold_changes", "gold_offsets", "gold_passed_tests")

# Statements that give a role `privileges` on the relations of schemas, where it lacks one of them
# and the user of the connection may give it.
_RELATIONS = """
    select format('grant %%s on table %%s to %%I', array_to_string(%(privileges)s::text[], ', '),
        pg_class.oid::regclass, %(role)s::text)
    from pg_class join pg_namespace on pg_namespace.oid = relnamespace
    where nspname = any(%(schemas)s) and relname <> all(%(but)s) and relkind = any('{r,p,v,m,f}')
        and pg_has_role(relowner, 'usage')
        and case when to_regrole(quote_ident(%(role)s)) is null then true else exists (
            select from unnest(%(privileges)s::text[]) as privilege
            where not has_table_privilege(%(role)s::text, pg_class.oid, privilege)
        ) end
    order by 1
"""
# Statements that give `role` the relations and routines of the models that are not its own.
_FOREIGN = """
    select format('alter table %%s owner to %%I', pg_class.oid::regclass, %(role)s::text)
    from pg_class join pg_namespace on pg_namespace.oid = relnamespace
    where (nspname = any(%(models)s) or nspname = 'ops' and relname = any(%(books)s))
        and relkind = any('{r,p,v,m,f}')
        and relowner is distinct from to_regrole(quote_ident(%(role)s))
    union all
    select format('alter routine %%s owner to %%I', pg_proc.oid::regprocedure, %(role)s::text)
    from pg_proc join pg_namespace on pg_namespace.oid = pronamespace
    where nspname = any(%(models)s)
        and proowner is distinct from to_regrole(quote_ident(%(role)s))
"""
_FOREIGN_TO_DAGSTER = """
    select format('alter table %%s owner to %%I', pg_class.oid::regclass, %(role)s::text)
    from pg_class join pg_namespace on pg_namespace.oid = relnamespace
    where nspname = 'public' and relkind = any('{r,p,v,m}')
        and relowner is distinct from to_regrole(quote_ident(%(role)s))
"""


class _Orders:
    """Statements as they are run, or kept for an administrator from the first that is refused."""

    def __init__(self) -> None:
        self._refused: str | None = None
        self._kept: dict[str, list[str]] = {}

    @property
    def are_kept(self) -> bool:
        """Whether a statement was refused."""
        return self._refused is not None

    def run(
        self,
        connection: psycopg.Connection,
        statement: Composed | SQL,
        *,
        named: Composed | None = None,
    ) -> None:
        """Run `statement`, or keep it as `named`."""
        try:
            if not self.are_kept:
                connection.execute(statement)
                return
        except (psycopg.errors.DuplicateSchema, psycopg.errors.DuplicateDatabase):
            return
        except psycopg.errors.InsufficientPrivilege as error:
            self._refused = error.diag.message_primary
        kept = self._kept.setdefault(connection.info.dbname, [])
        kept.append((named or statement).as_string(connection))

    def run_each(
        self,
        connection: psycopg.Connection,
        statements: Iterator[Composed | SQL] | Iterator[Composed],
    ) -> None:
        """Run each statement before the next one is found."""
        for statement in statements:
            self.run(connection, statement)

    def insist(self) -> None:
        """Insist that none was refused.

        Raises:
            StackError: one was; the message says what an administrator has to run.
        """
        if self.are_kept:
            wanted = "; then ".join(
                f"in the database {database!r}: {'; '.join(statements)}"
                for database, statements in self._kept.items()
            )
            raise StackError(
                f"the roles in PostgreSQL are not ready: {self._refused}; "
                f"as an administrator run {wanted}"
            )


@dataclass(frozen=True, slots=True)
class Role:
    """A role as its URL names it, and the setting that the URL came from."""

    setting: str
    url: str = field(repr=False)

    @property
    def name(self) -> str:
        """Its name in PostgreSQL."""
        return _user(self.url)

    @property
    def _password(self) -> str:
        return str(conninfo_to_dict(self.url).get("password") or "")

    def make(self, owner: psycopg.Connection, orders: _Orders, *, owns_password: bool) -> None:
        """Make the role unless it is there.

        `owns_password` says that its password may be set where the URL has another one.
        """
        is_there = _asks(owner, "select to_regrole(quote_ident(%s)) is not null", self.name)
        if not is_there:
            create = SQL("create role {} login password ").format(Identifier(self.name))
            # Two commands may come here at once.
            with suppress(psycopg.errors.DuplicateObject):
                orders.run(owner, create + self._encrypted(owner), named=create + SQL("'...'"))
        elif owns_password and not self._comes_in():
            alter = SQL("alter role {} login password ").format(Identifier(self.name))
            orders.run(owner, alter + self._encrypted(owner), named=alter + SQL("'...'"))

    def lend(self, owner: psycopg.Connection, orders: _Orders) -> None:
        """Let the owner act as the role: what goes to a role is given by who may be it.

        From PostgreSQL 16 on, who makes a role may only administer it.
        """
        may_act = "member" if owner.info.server_version < 160_000 else "set"
        if not orders.are_kept and not _asks(
            owner, "select pg_has_role(quote_ident(%s)::regrole, %s)", self.name, may_act
        ):
            orders.run(
                owner,
                SQL("grant {} to {}").format(Identifier(self.name), Identifier(owner.info.user)),
            )

    def require(self) -> None:
        """Insist that the role comes in.

        Raises:
            SettingsError: it does not.
        """
        try:
            with psycopg.connect(self.url, connect_timeout=10):
                return
        except psycopg.OperationalError as error:
            said = str(error).strip().splitlines()[-1]
            raise SettingsError(
                f"{self.setting} cannot be used: the role {self.name!r} does not come in at "
                f"{where(self.url)}: {said}"
            ) from None

    def _comes_in(self) -> bool:
        try:
            self.require()
        except SettingsError:
            return False
        return True

    def _encrypted(self, connection: psycopg.Connection) -> Composed:
        """Return the password as servers store it, so that none of their logs shows it."""
        encrypted = connection.pgconn.encrypt_password(
            self._password.encode(), self.name.encode(), b"scram-sha-256"
        )
        return SQL("{}").format(Literal(encrypted.decode()))


@dataclass(frozen=True, slots=True)
class Roles:
    """Who does what in the warehouse, and who keeps Dagster's books beside it.

    `hinter` is who notes the events of the bucket, where that is not the loader.
    """

    owner_url: str = field(repr=False)
    loader: Role
    transformer: Role
    dagster: Role
    hinter: Role | None = None

    def prepare(self, *, owns_passwords: bool, closes: bool = False) -> None:
        """Make the roles ready for what is there; what is in place is left alone.

        A role that is the owner itself needs nothing, and Dagster's on another server is others'.
        With `closes`, nobody comes into the warehouse any more who is not let in by name.
        The warehouse has been migrated before.

        Raises:
            SettingsError: a role does not come in with the password that its URL has.
            StackError: the owner may not do it; the message says what an administrator has to run.
        """
        owner = _user(self.owner_url)
        orders = _Orders()
        with self._alone() as connection:
            if closes:
                # First: a role that comes in as anybody would is not let in by name.
                orders.run_each(connection, _closed(connection))
            for role in (self.loader, self.transformer):
                if role.name != owner:
                    role.make(connection, orders, owns_password=owns_passwords)
                    orders.run_each(connection, self._may_come_in(connection, role))
                    if not orders.are_kept:
                        role.require()
            if self.loader.name != owner:
                orders.run_each(connection, self._loader_may(connection))
            if self.transformer.name != owner:
                orders.run_each(connection, self._transformer_may(connection))
                self._hand_over_models(connection, orders)
            if {self.loader.name, self.transformer.name} != {owner}:
                # The loader, and not only the transformer, looks at gold.
                orders.run_each(connection, self._loader_sees_models(connection))
            if self.dagster.name != owner and _same_server(self.dagster.url, self.owner_url):
                self._prepare_dagster(connection, orders, owns_password=owns_passwords)
            if self.hinter and self.hinter.name not in (owner, self.loader.name):
                self.hinter.make(connection, orders, owns_password=owns_passwords)
                orders.run_each(connection, self._may_hint(connection, self.hinter.name))
                if not orders.are_kept:
                    self.hinter.require()
        orders.insist()
        if self.loader.name != self.transformer.name:
            # Who makes the models lets the loader read them, and that may be the owner.
            with connect(self.transformer.url) as connection:
                orders.run_each(connection, self._loader_may_read_models(connection))
            orders.insist()

    def _prepare_dagster(
        self, connection: psycopg.Connection, orders: _Orders, *, owns_password: bool
    ) -> None:
        """Make Dagster's role and its database, which nobody else comes into."""
        role, database = self.dagster, _database(self.dagster.url)
        if database == connection.info.dbname:
            raise SettingsError(
                f"{role.setting} names the warehouse's own database {database!r} with a role of "
                "its own; name another database, which is made"
            )
        role.make(connection, orders, owns_password=owns_password)
        held_by = connection.execute(
            "select pg_get_userbyid(datdba) from pg_database where datname = %s", (database,)
        ).fetchone()
        if held_by in (None, (connection.info.user,)):
            theirs = Identifier(database), Identifier(role.name)
            if held_by is None:
                orders.run(connection, SQL("create database {}").format(theirs[0]))
            role.lend(connection, orders)
            # By the owner of the database, so before it is another.
            orders.run(
                connection, SQL("revoke connect on database {} from public").format(theirs[0])
            )
            give = SQL("alter database {} owner to {}").format(*theirs)
            if held_by is None:
                orders.run(connection, give)
            else:
                with connect(_in_database(self.owner_url, database)) as inside:
                    given = inside.execute(_FOREIGN_TO_DAGSTER, {"role": role.name}).fetchall()
                    orders.run(inside, give)
                    orders.run_each(inside, (SQL(statement) for (statement,) in given))
        if not orders.are_kept:
            role.require()

    @contextmanager
    def _alone(self) -> Iterator[psycopg.Connection]:
        """Yield the owner's connection; rights that two give at once collide."""
        with connect(self.owner_url, autocommit=True) as connection:
            connection.execute("select pg_advisory_lock(hashtextextended('stocks roles', 0))")
            yield connection

    def _may_come_in(self, connection: psycopg.Connection, role: Role) -> Iterator[Composed]:
        database = connection.info.dbname
        for right in ("connect", "temporary"):
            if not _asks(
                connection, "select has_database_privilege(%s, %s, %s)", role.name, database, right
            ):
                yield SQL("grant {} on database {} to {}").format(
                    SQL(right), Identifier(database), Identifier(role.name)
                )

    def _loader_may(self, connection: psycopg.Connection) -> Iterator[Composed | SQL]:
        name, database = self.loader.name, connection.info.dbname
        # Each load goes through a schema of its own.
        if not _asks(connection, "select has_database_privilege(%s, %s, 'create')", name, database):
            yield SQL("grant create on database {} to {}").format(
                Identifier(database), Identifier(name)
            )
        yield from _schemas(connection, name, ("bronze", "silver", "ops"), ("usage",))
        yield from _schemas(connection, name, ("silver",), ("create",))
        yield from _relations(
            connection, name, ("bronze", "silver", "ops"), _WRITE, but=_BOOKS_OF_MODELS
        )

    def _may_hint(self, connection: psycopg.Connection, name: str) -> Iterator[Composed | SQL]:
        database = connection.info.dbname
        if not _asks(
            connection, "select has_database_privilege(%s, %s, 'connect')", name, database
        ):
            yield SQL("grant connect on database {} to {}").format(
                Identifier(database), Identifier(name)
            )
        yield from _schemas(connection, name, ("bronze",), ("usage",))
        for right in ("select", "insert"):
            if not _asks(
                connection, "select has_table_privilege(%s, 'bronze.hints', %s)", name, right
            ):
                yield SQL("grant {} on table bronze.hints to {}").format(
                    SQL(right), Identifier(name)
                )

    def _transformer_may(self, connection: psycopg.Connection) -> Iterator[Composed | SQL]:
        name = self.transformer.name
        for schema in _MODELS:
            yield SQL("create schema if not exists {}").format(Identifier(schema))
        yield from _schemas(connection, name, (*_MODELS, "ops"), ("usage", "create"))
        yield from _schemas(connection, name, ("silver",), ("usage",))
        yield from _relations(connection, name, ("silver",), _READ)
        if not _asks(connection, "select has_table_privilege(%s, 'ops.batches', 'select')", name):
            yield SQL("grant select on table ops.batches to {}").format(Identifier(name))

    def _hand_over_models(self, connection: psycopg.Connection, orders: _Orders) -> None:
        """Give the transformer what was made before there was such a role."""
        books = {
            "models": list(_MODELS),
            "books": list(_BOOKS_OF_MODELS),
            "role": self.transformer.name,
        }
        foreign = connection.execute(_FOREIGN, books).fetchall()
        if foreign:
            self.transformer.lend(connection, orders)
        orders.run_each(connection, (SQL(statement) for (statement,) in foreign))

    def _loader_sees_models(self, connection: psycopg.Connection) -> Iterator[Composed | SQL]:
        for schema in _MODELS:
            yield SQL("create schema if not exists {}").format(Identifier(schema))
        yield from _schemas(connection, self.loader.name, _MODELS, ("usage",))

    def _loader_may_read_models(self, connection: psycopg.Connection) -> Iterator[Composed | SQL]:
        """Yield, for the transformer to run, what lets the loader read what it makes."""
        name = self.loader.name
        yield from _relations(connection, name, (*_MODELS, "ops"), _READ)
        for schema, kinds in (*((schema, "r") for schema in _MODELS), ("ops", "rS")):
            for kind in kinds:
                if not _asks(
                    connection,
                    "select exists (select from pg_default_acl, aclexplode(defaclacl) "
                    "where defaclrole = current_user::regrole and defaclobjtype::text = %s "
                    "and defaclnamespace = to_regnamespace(%s) and privilege_type = 'SELECT' "
                    "and grantee = to_regrole(quote_ident(%s)))",
                    kind,
                    schema,
                    name,
                ):
                    yield SQL(
                        "alter default privileges in schema {} grant select on {} to {}"
                    ).format(
                        Identifier(schema),
                        SQL("tables" if kind == "r" else "sequences"),
                        Identifier(name),
                    )
        sequences = connection.execute(
            "select format('grant select on sequence %%s to %%I', pg_class.oid::regclass, "
            "%(name)s::text) from pg_class join pg_namespace on pg_namespace.oid = relnamespace "
            "where nspname = 'ops' and pg_has_role(relowner, 'usage') and case when relkind = 'S' "
            "then not has_sequence_privilege(%(name)s::text, pg_class.oid, 'select') end",
            {"name": name},
        ).fetchall()
        for (statement,) in sequences:
            yield SQL(statement)


def _closed(connection: psycopg.Connection) -> Iterator[Composed]:
    """Yield what takes from everybody what they may in this database, where they may something."""
    if _asks(
        connection,
        "select exists (select from pg_database, "
        "aclexplode(coalesce(datacl, acldefault('d', datdba))) "
        "where datname = current_database() and grantee = 0)",
    ):
        database = Identifier(connection.info.dbname)
        yield SQL("revoke all on database {} from public").format(database)


def _schemas(
    connection: psycopg.Connection, role: str, schemas: Sequence[str], rights: Sequence[str]
) -> Iterator[Composed]:
    for schema in schemas:
        for right in rights:
            if not _asks(
                connection, "select has_schema_privilege(%s, %s, %s)", role, schema, right
            ):
                yield SQL("grant {} on schema {} to {}").format(
                    SQL(right), Identifier(schema), Identifier(role)
                )


def _relations(
    connection: psycopg.Connection,
    role: str,
    schemas: Sequence[str],
    privileges: Sequence[str],
    *,
    but: Sequence[str] = (),
) -> Iterator[SQL]:
    lacking = connection.execute(
        _RELATIONS,
        {
            "role": role,
            "schemas": list(schemas),
            "privileges": list(privileges),
            "but": list(but),
        },
    ).fetchall()
    for (statement,) in lacking:
        yield SQL(statement)


def _asks(connection: psycopg.Connection, question: str, *parameters: str) -> bool:
    """Return the answer; of a role or schema that an administrator has still to make it is no."""
    try:
        with connection.cursor(row_factory=scalar_row) as cursor:
            return bool(cursor.execute(question.encode(), parameters).fetchone())
    except (psycopg.errors.UndefinedObject, psycopg.errors.InvalidSchemaName):
        return False


def _user(url: str) -> str:
    return str(conninfo_to_dict(url).get("user") or "")


def _database(url: str) -> str:
    return str(conninfo_to_dict(url)["dbname"])


def _in_database(url: str, name: str) -> str:
    return urlsplit(url)._replace(path=f"/{name}").geturl()


def _same_server(url: str, other: str) -> bool:
    one, two = urlsplit(url), urlsplit(other)
    return (one.hostname, one.port or 5432) == (two.hostname, two.port or 5432)
