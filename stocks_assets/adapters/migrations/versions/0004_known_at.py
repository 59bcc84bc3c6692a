"""What was known when: superseded rows, restated adjusted closes, and prices as of a past moment."""

from alembic import op

revision = "0004"
down_revision = "0003"

TABLES = (
    "weekly_bars",
    "monthly_bars",
    "daily_bars",
    "intraday_bars",
    "corporate_actions",
    "companies",
    "listings",
)

# The objects' keys hold the time at which they came: bronze/<dataset>/<date>/<HHMMSS.ffffff>_...
KNOWN_AT = "".join(
    f"""
alter table silver.{table} add column known_at timestamptz;
update silver.{table} set known_at = to_timestamp(
    split_part(bronze_key, '/', 3) || split_part(split_part(bronze_key, '/', 4), '_', 1) || '+00',
    'YYYY-MM-DDHH24MISS.USTZH');
alter table silver.{table} alter column known_at set not null;
comment on column silver.{table}.known_at is
    'Since when the row has said what it says, the adjusted close apart: when the object came.';
comment on column silver.{table}.bronze_key is 'The object that first said what the row says.';
comment on column silver.{table}.row_version is 'Hash of the business columns.';
comment on column silver.{table}.load_id is 'The load that wrote the row.';
comment on column silver.{table}.loaded_at is 'When it wrote it.';
"""
    for table in TABLES
)

PERIODS = "".join(
    f"""
alter table silver.{table} add column is_complete boolean not null default true;
alter table silver.{table} alter column is_complete drop default;
comment on column silver.{table}.is_complete is
    'Whether the {period} was over when the object came: false for the running one.';
"""
    for table, period in (("weekly_bars", "week"), ("monthly_bars", "month"))
)

# Rows that loads wrote before these checks were checked by the schemas alike.
RULES = "".join(
    f"""
alter table silver.{table}
    add check (low > 0 and high >= low and open > 0 and close > 0 and volume >= 0);
"""
    for table in ("weekly_bars", "monthly_bars", "daily_bars", "intraday_bars")
)

SOURCES = "".join(
    f"""
alter table silver.{table} add column source text not null generated always as (
    case when bronze_key like 'bronze/dropped%' then 'inbox' else 'vendor' end) stored;
comment on column silver.{table}.source is 'vendor, or inbox for rows of files that people dropped.';
"""
    for table in ("daily_bars", "corporate_actions")
)

HISTORY = """
create table ops.refused_objects (
    table_name text not null,
    ticker text not null,
    bronze_key text not null,
    reason text not null,
    refused_at timestamptz not null default clock_timestamp(),
    primary key (table_name, bronze_key)
);
comment on table ops.refused_objects is 'One row per object that a silver table took nothing from, and why.';

create table silver.superseded_rows (
    table_name text not null,
    ticker text not null,
    row_key text not null,
    superseded_at timestamptz not null,
    known_at timestamptz not null,
    class text not null,
    old_row jsonb not null,
    new_row jsonb,
    old_bronze_key text not null,
    new_bronze_key text not null,
    primary key (table_name, ticker, row_key, superseded_at)
);
comment on table silver.superseded_rows is 'One row per row of a silver table that said something else, or was there, until an object came.';
comment on column silver.superseded_rows.row_key is 'The primary key beside the ticker.';
comment on column silver.superseded_rows.known_at is 'From when on the row said what old_row has.';
comment on column silver.superseded_rows.superseded_at is 'When the object came that says otherwise.';
comment on column silver.superseded_rows.class is 'running period, vendor correction, rounding or removed.';
comment on column silver.superseded_rows.new_row is 'Null where the row is gone.';

create table silver.restated_closes (
    table_name text not null,
    ticker text not null,
    restated_at timestamptz not null,
    class text not null,
    keys date[] not null,
    old_values double precision[] not null,
    new_values double precision[] not null,
    old_bronze_keys text[] not null,
    new_bronze_key text not null,
    primary key (table_name, ticker, restated_at)
);
comment on table silver.restated_closes is 'One row per ticker and object that restated its adjusted closes.';
comment on column silver.restated_closes.class is 'dividend, split, both, rounding or vendor correction.';
comment on column silver.restated_closes.keys is 'The periods whose adjusted close is another.';

-- An adjusted close that changes under the same close is a matter of silver.restated_closes.
create view silver.restatements as
select
    table_name, ticker, restated_at, class, array['adjusted_close'] as columns,
    cardinality(keys) as rows_changed, keys[1]::text as first_key,
    keys[cardinality(keys)]::text as last_key, new_values[1] / nullif(old_values[1], 0) as factor,
    old_bronze_keys, new_bronze_key
from silver.restated_closes
union all
select
    table_name, ticker, superseded_at, class,
    array(
        select distinct changed.key
        from unnest(array_agg(old_row), array_agg(new_row)) as pair (old_row, new_row),
            jsonb_each(pair.old_row) as changed
        where (pair.new_row is null or pair.new_row -> changed.key is distinct from changed.value)
            and (changed.key <> 'adjusted_close'
                or pair.new_row -> 'close' is distinct from pair.old_row -> 'close')
        order by changed.key
    ),
    count(*), min(row_key), max(row_key), null, array_agg(distinct old_bronze_key), new_bronze_key
from silver.superseded_rows
where class <> 'running period'
group by table_name, ticker, superseded_at, class, new_bronze_key;
comment on view silver.restatements is 'One row per event in which an object said something else than what was stored: a whole history of restated adjusted closes is one.';

create view silver.restated_values as
select
    table_name, ticker, restated_at, class, period::text as row_key,
    'adjusted_close' as column_name, old_value::text as old_value, new_value::text as new_value,
    old_bronze_keys[cardinality(old_bronze_keys)] as old_bronze_key, new_bronze_key
from silver.restated_closes, unnest(keys, old_values, new_values) as line (period, old_value, new_value)
union all
select
    table_name, ticker, superseded_at, class, row_key, changed.key, changed.value #>> '{}',
    new_row ->> changed.key, old_bronze_key, new_bronze_key
from silver.superseded_rows, jsonb_each(old_row) as changed
where class <> 'running period'
    and (new_row is null or new_row -> changed.key is distinct from changed.value)
    and (changed.key <> 'adjusted_close' or new_row -> 'close' is distinct from old_row -> 'close');
comment on view silver.restated_values is 'One row per value that an object changed: the old one and the new one.';
"""


TYPES = {
    "ticker": "text",
    "session_date": "date",
    "week_start": "date",
    "month_start": "date",
    "volume": "bigint",
    "is_complete": "boolean",
    "known_at": "timestamptz",
}


def as_of(table: str, dates: tuple[str, ...], last: tuple[str, ...]) -> str:
    """Return the function that reads `table` as it was known at a moment."""
    _, period, *_ = dates
    before = [*dates, "open", "high", "low", "close"]
    after = ["volume", "dividend_amount", *last, "known_at"]
    columns = [*before, "adjusted_close", *after]
    returned = ", ".join(f"{name} {TYPES.get(name, 'double precision')}" for name in columns)
    read = ", ".join(columns)
    return f"""
create function silver.{table}_as_of(at timestamptz, of_tickers text[] default null)
returns table ({returned}) language sql stable as $$
with versions as (
    select {read}, 'infinity'::timestamptz as until
    from silver.{table}
    where known_at <= at and (of_tickers is null or ticker = any(of_tickers))
    union all
    select {", ".join("superseded.known_at" if n == "known_at" else f"image.{n}" for n in columns)},
        superseded_at
    from silver.superseded_rows superseded,
        jsonb_populate_record(null::silver.{table}, superseded.old_row) as image
    where table_name = '{table}' and superseded.known_at <= at and superseded_at > at
        and (of_tickers is null or superseded.ticker = any(of_tickers))
),
known as (
    select distinct on (ticker, {period}) * from versions order by ticker, {period}, until
),
restated as (
    select distinct on (ticker, period) ticker, period, restated_at, old_value
    from silver.restated_closes, unnest(keys, old_values) as line (period, old_value)
    where table_name = '{table}' and restated_at > at
        and (of_tickers is null or ticker = any(of_tickers))
    order by ticker, period, restated_at
)
select {", ".join(f"known.{name}" for name in before)},
    case
        when restated.restated_at <= known.until then restated.old_value
        else known.adjusted_close
    end,
    {", ".join(f"known.{name}" for name in after)}
from known left join restated on restated.ticker = known.ticker and restated.period = known.{period}
$$;
comment on function silver.{table}_as_of is 'silver.{table} as it was known at a moment: what the objects said that had come by then.';
"""


def upgrade() -> None:
    """Make them."""
    op.execute(KNOWN_AT + PERIODS + RULES + SOURCES + HISTORY)
    op.execute(as_of("daily_bars", ("ticker", "session_date"), ("split_coefficient",)))
    op.execute(as_of("weekly_bars", ("ticker", "week_start", "session_date"), ("is_complete",)))
    op.execute(as_of("monthly_bars", ("ticker", "month_start", "session_date"), ("is_complete",)))
