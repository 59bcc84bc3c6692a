{{ config(
    materialized='incremental',
    incremental_strategy='replace_all',
    on_schema_change='fail',
    pre_hook="{{ take_differences(
        'select calendar_date as date_day, is_session, is_early_close, holiday_name, opens_at, closes_at from '
        ~ ref('stg_exchange_calendar'),
        ['date_day', 'is_session', 'is_early_close', 'holiday_name', 'opens_at', 'closes_at'],
        day='date_day',
    ) }}",
    post_hook="{{ pass_changes_on() }}",
) }}

with

calendar as (
    select * from {{ ref('stg_exchange_calendar') }}
    where {{ something_changed() }}
),

dates as (
    select
        calendar_date as date_day,
        is_session,
        is_early_close,
        holiday_name,
        opens_at,
        closes_at,
        date_trunc('week', calendar_date)::date as week_start,
        date_trunc('month', calendar_date)::date as month_start,
        date_trunc('quarter', calendar_date)::date as quarter_start,
        extract(year from calendar_date)::integer as year,
        case when is_session then calendar_date end as session_day
    from calendar
),

final as (
    select
        date_day,
        is_session,
        is_early_close,
        holiday_name,
        opens_at,
        closes_at,
        year,
        extract(quarter from date_day)::integer as quarter,
        extract(month from date_day)::integer as month,
        extract(isoyear from date_day)::integer as iso_year,
        extract(week from date_day)::integer as iso_week,
        week_start,
        month_start,
        quarter_start,
        extract(isodow from date_day)::integer as day_of_week,
        to_char(date_day, 'FMDay') as day_name,
        coalesce(date_day = max(session_day) over (partition by week_start), false) as is_last_session_of_week,
        coalesce(date_day = max(session_day) over (partition by month_start), false) as is_last_session_of_month,
        coalesce(date_day = max(session_day) over (partition by quarter_start), false) as is_last_session_of_quarter,
        coalesce(date_day = max(session_day) over (partition by year), false) as is_last_session_of_year,
        max(session_day) over (
            order by date_day
            rows between unbounded preceding and 1 preceding
        ) as previous_session,
        min(session_day) over (
            order by date_day desc
            rows between unbounded preceding and 1 preceding
        ) as next_session
    from dates
)

select * from final
