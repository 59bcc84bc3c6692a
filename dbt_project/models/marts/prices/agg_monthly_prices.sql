with

weeks as (
    select * from {{ ref('agg_weekly_prices') }}
    {% if is_incremental() %}
    where {{ in_batch('ticker') }}
    {% endif %}
),

week_ends as (
    select
        week_start,
        month_start,
        date_day as last_session
    from {{ ref('dim_date') }}
    where is_last_session_of_week
),

month_ends as (
    select
        month_start,
        max(last_session) as last_session
    from week_ends
    group by month_start
),

weeks_of_months as (
    select
        weeks.*,
        coalesce(week_ends.month_start, date_trunc('month', weeks.session_date)::date) as month_start,
        max(weeks.session_date) over (partition by weeks.ticker) as last_seen
    from weeks
    left join week_ends on weeks.week_start = week_ends.week_start
),

months as (
    select
        ticker,
        month_start,
        max(session_date) as session_date,
        (array_agg(adjusted_open order by week_start))[1] as adjusted_open,
        max(adjusted_high) as adjusted_high,
        min(adjusted_low) as adjusted_low,
        (array_agg(adjusted_close order by week_start desc))[1] as adjusted_close,
        sum(volume)::bigint as volume,
        sum(dividend_amount) as dividend_amount,
        count(*)::integer as week_count,
        max(last_seen) as last_seen
    from weeks_of_months
    group by ticker, month_start
),

months_in_order as (
    select
        months.*,
        lag(adjusted_close) over (partition by ticker order by month_start) as previous_adjusted_close,
        row_number() over (partition by ticker order by month_start) as months_so_far
    from months
),

final as (
    select
        months.ticker,
        months.month_start,
        months.session_date,
        months.adjusted_open,
        months.adjusted_high,
        months.adjusted_low,
        months.adjusted_close,
        months.volume,
        months.dividend_amount,
        months.week_count,
        months.adjusted_close / nullif(months.previous_adjusted_close, 0) - 1 as simple_return_1m,
        case when months.months_so_far >= 3 then avg(months.adjusted_close) over last_3_months end as sma_3m,
        case when months.months_so_far >= 6 then avg(months.adjusted_close) over last_6_months end as sma_6m,
        case when months.months_so_far >= 12 then avg(months.adjusted_close) over last_12_months end as sma_12m,
        coalesce(months.last_seen >= month_ends.last_session, false) as is_complete
    from months_in_order as months
    left join month_ends on months.month_start = month_ends.month_start
    window
        last_3_months as (partition by months.ticker order by months.month_start rows 2 preceding),
        last_6_months as (partition by months.ticker order by months.month_start rows 5 preceding),
        last_12_months as (partition by months.ticker order by months.month_start rows 11 preceding)
)

select * from final
