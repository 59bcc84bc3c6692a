with

weeks as (
    select * from {{ ref('fct_weekly_prices') }}
    {% if is_incremental() %}
    where {{ in_batch('ticker') }}
    {% endif %}
),

adjusted as (
    select
        ticker,
        week_start,
        session_date,
        open * adjusted_close / nullif(close, 0) as adjusted_open,
        high * adjusted_close / nullif(close, 0) as adjusted_high,
        low * adjusted_close / nullif(close, 0) as adjusted_low,
        adjusted_close,
        volume,
        dividend_amount,
        simple_return_1w,
        is_complete,
        row_number() over (partition by ticker order by week_start) as weeks_so_far
    from weeks
),

final as (
    select
        ticker,
        week_start,
        session_date,
        adjusted_open,
        adjusted_high,
        adjusted_low,
        adjusted_close,
        volume,
        dividend_amount,
        simple_return_1w,
        case when weeks_so_far >= 4 then avg(adjusted_close) over last_4_weeks end as sma_4w,
        case when weeks_so_far >= 13 then avg(adjusted_close) over last_13_weeks end as sma_13w,
        case when weeks_so_far >= 26 then avg(adjusted_close) over last_26_weeks end as sma_26w,
        case when weeks_so_far >= 52 then avg(adjusted_close) over last_52_weeks end as sma_52w,
        case when weeks_so_far >= 52 then max(adjusted_close) over last_52_weeks end as high_52w,
        case when weeks_so_far >= 52 then min(adjusted_close) over last_52_weeks end as low_52w,
        is_complete
    from adjusted
    window
        last_4_weeks as (partition by ticker order by week_start rows 3 preceding),
        last_13_weeks as (partition by ticker order by week_start rows 12 preceding),
        last_26_weeks as (partition by ticker order by week_start rows 25 preceding),
        last_52_weeks as (partition by ticker order by week_start rows 51 preceding)
)

select * from final
