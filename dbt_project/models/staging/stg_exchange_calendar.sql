select
    calendar_date,
    is_session,
    is_early_close,
    holiday_name,
    opens_at,
    closes_at
from {{ source('silver', 'exchange_calendar') }}
