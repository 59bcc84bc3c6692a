"""Objects that arrive in the bucket: ETags, what each table has still to load, and where sweeps stand."""

from alembic import op

revision = "0007"
down_revision = "0006"

# Which tables read which datasets, as of this version.
READERS = {
    "listings": ("listings",),
    "weekly_bars": ("weekly_bars",),
    "daily_bars": ("daily_bars", "dropped_daily_bars"),
    "monthly_bars": ("monthly_bars",),
    "intraday_bars": ("intraday_bars",),
    "corporate_actions": (
        "splits",
        "dividends",
        "daily_bars",
        "dropped_daily_bars",
        "dropped_actions",
    ),
    "companies": ("companies",),
}
INPUTS = ", ".join(
    f"('{table}', '{dataset}')" for table, datasets in READERS.items() for dataset in datasets
)

SQL = f"""
alter table bronze.objects add column etag text;
comment on column bronze.objects.etag is 'As last listed; null until the object is listed for the first time.';

create table bronze.notices (
    key text not null,
    etag text not null,
    reason text not null,
    noticed_at timestamptz not null default clock_timestamp(),
    reported_at timestamptz,
    primary key (key, etag)
);
comment on table bronze.notices is 'One row per object below bronze/ that cannot be taken up, or was overwritten, and why.';
create index on bronze.notices (noticed_at) where reported_at is null;

create table bronze.sweeps (
    name text primary key,
    position text,
    ended_at timestamptz
);
comment on table bronze.sweeps is 'One row per stretch of keys that is listed again and again: where the listing stands.';
comment on column bronze.sweeps.position is 'The key after which it goes on; null between two of them.';

create table ops.object_loads (
    table_name text not null,
    bronze_key text not null,
    ticker text not null,
    noticed_at timestamptz not null default clock_timestamp(),
    overwritten_at timestamptz,
    requests integer not null default 0,
    requested_at timestamptz,
    reported_at timestamptz,
    loads integer not null default 0,
    loaded_at timestamptz,
    is_refused boolean not null default false,
    primary key (bronze_key, table_name)
);
comment on table ops.object_loads is 'One row per bronze object and silver table that reads it: when it was noticed, handed to a run, loaded.';
comment on column ops.object_loads.requests is 'How often the sensor has handed it to a run.';
comment on column ops.object_loads.reported_at is 'When people were told that its ticker is not in the universe.';
comment on column ops.object_loads.loads is 'How many contents it was loaded with: 1 unless it was overwritten.';
comment on column ops.object_loads.is_refused is 'The table takes nothing of it, see ops.refused_objects.';
create index on ops.object_loads (ticker) where loaded_at is null and not is_refused;

with inputs (table_name, dataset) as (values {INPUTS}), loaded as (
    select table_name, loads.ticker, max(fetched_at) as until, max(loaded_at) as loaded_at
    from ops.silver_loads loads join bronze.objects on key = any(bronze_keys) group by 1, 2
)
insert into ops.object_loads (table_name, bronze_key, ticker, loads, loaded_at)
select table_name, key, ticker, case when fetched_at <= until then 1 else 0 end,
    case when fetched_at <= until then loaded.loaded_at end
from bronze.objects join inputs using (dataset) left join loaded using (table_name, ticker);
update ops.object_loads loads set is_refused = true from ops.refused_objects refused
where loads.loaded_at is null and refused.table_name = loads.table_name
    and refused.bronze_key = loads.bronze_key;
"""


def upgrade() -> None:
    """Make the tables, and take for loaded what silver has gone past."""
    op.execute(SQL)
