"""Intraday bars as of a past moment, and the object that said each restated value."""

from alembic import op

revision = "0008"
down_revision = "0007"

SQL = """
alter table silver.restated_closes add column old_key_places integer[];
alter table silver.restated_closes add constraint each_key_has_an_old_object check (
    old_key_places is null
    or cardinality(old_key_places) = cardinality(keys)
        and 1 <= all(old_key_places) and cardinality(old_bronze_keys) >= all(old_key_places));
comment on column silver.restated_closes.old_key_places is
    'Which of old_bronze_keys said each of old_values, counted from 1; null in rows of before this column.';

create or replace view silver.restated_values as
select
    table_name, ticker, restated_at, class, period::text as row_key,
    'adjusted_close' as column_name, old_value::text as old_value, new_value::text as new_value,
    old_bronze_keys[coalesce(place, cardinality(old_bronze_keys))] as old_bronze_key, new_bronze_key
from silver.restated_closes,
    unnest(keys, old_values, new_values, old_key_places)
        as line (period, old_value, new_value, place)
union all
select
    table_name, ticker, superseded_at, class, row_key, changed, old_row ->> changed,
    new_row ->> changed, old_bronze_key, new_bronze_key
from silver.superseded_rows, silver.changed_columns(old_row, new_row) as changed
where class not in ('running period', 'other columns');

create function silver.intraday_bars_as_of(at timestamptz, of_tickers text[] default null)
returns table (
    ticker text, starts_at timestamptz, session_date date, open double precision,
    high double precision, low double precision, close double precision, volume bigint,
    known_at timestamptz
) language sql stable as $$
with versions as (
    select
        ticker, starts_at, session_date, open, high, low, close, volume, known_at,
        'infinity'::timestamptz as until
    from silver.intraday_bars
    where known_at <= at and (of_tickers is null or ticker = any(of_tickers))
    union all
    select
        image.ticker, image.starts_at, image.session_date, image.open, image.high, image.low,
        image.close, image.volume, superseded.known_at, superseded_at
    from silver.superseded_rows superseded,
        jsonb_populate_record(null::silver.intraday_bars, superseded.old_row) as image
    where table_name = 'intraday_bars' and superseded.known_at <= at and superseded_at > at
        and (of_tickers is null or superseded.ticker = any(of_tickers))
)
select distinct on (ticker, starts_at)
    ticker, starts_at, session_date, open, high, low, close, volume, known_at
from versions
order by ticker, starts_at, until
$$;
comment on function silver.intraday_bars_as_of is
    'silver.intraday_bars as it was known at a moment: what the objects said that had come by then.';
"""


def upgrade() -> None:
    """Make them."""
    op.execute(SQL)
