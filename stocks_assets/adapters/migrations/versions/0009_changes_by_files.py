"""Changes that files make have a class of their own; a removed row has lost its values, not its key."""

from alembic import op

revision = "0009"
down_revision = "0008"

SQL = """
alter table silver.superseded_rows drop constraint class_is_known;
alter table silver.superseded_rows add constraint class_is_known check (class in
    ('running period', 'other columns', 'file', 'vendor correction', 'rounding', 'removed'));
comment on column silver.superseded_rows.class is
    'running period, other columns (a payload of an endpoint or file that gives more or fewer of them), file (a file came or went), vendor correction, rounding or removed.';
comment on column silver.restatements.class is
    'dividend, split, dividend and split, vendor correction, file, rounding or removed.';

create or replace function silver.changed_columns(old_row jsonb, new_row jsonb)
returns setof text language sql immutable
begin atomic
    select changed.key
    from jsonb_each(old_row) as changed
    where (
            new_row is null
            and changed.key not in (
                'ticker', 'week_start', 'month_start', 'starts_at', 'ex_date', 'action_type',
                'delisted_on'
            )
            -- Of a day it is the key.
            and (
                changed.key <> 'session_date'
                or old_row ?| array['week_start', 'month_start', 'starts_at']
            )
        )
        or (
            new_row -> changed.key is distinct from changed.value
            and new_row is not null
            and not (
                changed.key in ('adjusted_close', 'dividend_amount', 'split_coefficient')
                and 'null'::jsonb in (changed.value, new_row -> changed.key)
            )
            -- An adjusted close that changes under the same close is in silver.restated_closes.
            and (
                changed.key <> 'adjusted_close'
                or new_row -> 'close' is distinct from old_row -> 'close'
            )
        );
end;
"""


def upgrade() -> None:
    """Make them."""
    op.execute(SQL)
