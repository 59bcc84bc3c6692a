{#- The query of int_weekly_bars_from_daily, on some rows of fct_daily_prices: whole weeks of them. -#}
{% macro weekly_bars_from_daily(prices) %}
    with

    prices_of_weeks as (
        select
            *,
            date_trunc('week', session_date)::date as week_start
        from {{ prices }} as prices
    ),

    sessions as (
        select
            *,
            lag(session_date) over week is null as is_first_session,
            lead(session_date) over week is null as is_last_session,
            last_value(split_index) over (week rows between current row and unbounded following)
            / split_index as later_splits
        from prices_of_weeks
        window week as (partition by ticker, week_start order by session_date)
    ),

    final as (
        select
            ticker,
            week_start,
            min(session_date) as first_session,
            max(session_date) as session_date,
            max(open / later_splits) filter (where is_first_session) as open,
            max(high / later_splits) as high,
            min(low / later_splits) as low,
            max(close) filter (where is_last_session) as close,
            sum(volume * later_splits)::bigint as volume,
            max(vendor_adjusted_close) filter (where is_last_session) as adjusted_close,
            sum(dividend_amount / later_splits) as dividend_amount,
            bool_or(split_ratio <> 1 and not is_first_session) as has_split_inside,
            bool_or(is_first_session and previous_close is null) as begins_history
        from sessions
        group by ticker, week_start
    )

    select * from final
{% endmacro %}
