with

bars as (
    select * from {{ ref('stg_weekly_bars') }}
    {% if is_incremental() %}
    where {{ in_batch('ticker') }}
    {% endif %}
),

week_ends as (
    select
        week_start,
        date_day as last_session
    from {{ ref('dim_date') }}
    where is_last_session_of_week
),

final as (
    select
        bars.ticker,
        bars.week_start,
        bars.session_date,
        bars.open,
        bars.high,
        bars.low,
        bars.close,
        bars.volume,
        bars.adjusted_close,
        bars.dividend_amount,
        bars.adjusted_close / nullif(
            lag(bars.adjusted_close) over (partition by bars.ticker order by bars.week_start), 0
        ) - 1 as simple_return_1w,
        coalesce(bars.session_date >= week_ends.last_session, false) as is_complete,
        bars.bronze_key
    from bars
    left join week_ends on bars.week_start = week_ends.week_start
)

select * from final
