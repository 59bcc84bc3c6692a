{#-
    Bars of longer periods from `rows_of`, sessions or weeks that are on their own scale: one row per
    ticker, security and value of the expression `period`, on the scale of the period's last row, so
    that a split inside does not mix scales. A price that one of the rows lacks is null.
-#}
{% macro roll_up(rows_of, period) %}
    select
        ticker,
        security_key,
        period_start,
        min(session_date) as first_session,
        max(session_date) as session_date,
        max(previous_session) filter (where is_first) as previous_session,
        count(*) as row_count,
        max(open / later_splits) filter (where is_first) as open,
        case when bool_and(high is not null) then max(high / later_splits) end as high,
        case when bool_and(low is not null) then min(low / later_splits) end as low,
        max(close) filter (where is_last) as close,
        case when bool_and(volume is not null) then sum(volume * later_splits order by session_date)::bigint end as volume,
        sum(dividend_amount / later_splits order by session_date) as dividend_amount,
        gold.product(split_ratio order by session_date) as split_ratio,
        gold.product(growth order by session_date) as growth,
        bool_or(scale_is_doubtful) as scale_is_doubtful
    from (
        select
            *,
            lag(session_date) over period_of_rows is null as is_first,
            lead(session_date) over period_of_rows is null as is_last,
            last_value(split_index) over (period_of_rows rows between current row and unbounded following)
            / split_index as later_splits
        from (
            select
                *,
                {{ period }} as period_start
            from {{ rows_of }}
        ) as rows_of
        window period_of_rows as (partition by ticker, security_key, period_start order by session_date)
    ) as rows_in_order
    group by ticker, security_key, period_start
{% endmacro %}
