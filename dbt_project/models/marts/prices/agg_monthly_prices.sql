{{ config(
    meta={'period': 'month_start'},
    pre_hook="{{ take_changes_of(
        [ref('agg_weekly_prices')],
        kept={'agg_weekly_prices': month_before_week()},
    ) }}",
    post_hook="{{ pass_changes_on() }}",
) }}

with

weeks as (
    select *
    from {{ changed_rows(ref('agg_weekly_prices'), period='week_start', after=week_before_month_after('changes.kept_through')) }}
        as weeks
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
    {% if is_incremental() %}
    where exists (
        select 1
        from {{ changes() }} as changes
        where
            changes.ticker = weeks_of_months.ticker
            and weeks_of_months.month_start > coalesce(changes.kept_through, '-infinity')
    )
    {% endif %}
    group by ticker, month_start
),

scaled as (
    select
        *,
        true as is_new
    from months
    {% if is_incremental() %}
    -- The longest window reaches back 11 months.
    union all
    select
        ticker,
        month_start,
        session_date,
        adjusted_open,
        adjusted_high,
        adjusted_low,
        adjusted_close,
        volume,
        dividend_amount,
        week_count,
        null,
        false
    from {{ kept_rows(11) }} as kept
    {% endif %}
),

months_in_order as (
    select
        scaled.*,
        lag(adjusted_close) over (partition by ticker order by month_start) as previous_adjusted_close,
        row_number() over (partition by ticker order by month_start) as months_so_far
    from scaled
),

windowed as (
    select
        months.is_new,
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
),

final as (
    select
        ticker,
        month_start,
        session_date,
        adjusted_open,
        adjusted_high,
        adjusted_low,
        adjusted_close,
        volume,
        dividend_amount,
        week_count,
        simple_return_1m,
        sma_3m,
        sma_6m,
        sma_12m,
        is_complete
    from windowed
    where is_new
)

select * from final
