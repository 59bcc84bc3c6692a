with

bars as (
    select * from {{ ref('stg_daily_bars') }}
    {% if is_incremental() %}
    where {{ in_batch('ticker') }}
    {% endif %}
),

actions as (
    select * from {{ ref('stg_corporate_actions') }}
    {% if is_incremental() %}
    where {{ in_batch('ticker') }}
    {% endif %}
),

actions_of_date as (
    select
        ticker,
        ex_date,
        max(dividend_amount) as dividend_amount,
        max(split_ratio) as split_ratio
    from actions
    group by ticker, ex_date
),

prices as (
    select
        bars.ticker,
        bars.session_date,
        bars.open,
        bars.high,
        bars.low,
        bars.close,
        bars.volume,
        -- What came before raw bars of the vendor's is adjusted as of an older reply.
        case
            when
                bars.session_date < max(bars.session_date) filter (
                    where bars.source = 'vendor' and bars.adjusted_close is null
                ) over (partition by bars.ticker)
                then null
            else bars.adjusted_close
        end as adjusted_close,
        coalesce(actions_of_date.dividend_amount, bars.dividend_amount, 0) as dividend_amount,
        coalesce(actions_of_date.split_ratio, bars.split_coefficient, 1) as split_ratio,
        lag(bars.close) over (partition by bars.ticker order by bars.session_date) as previous_close,
        bars.bronze_key
    from bars
    left join actions_of_date
        on
            bars.ticker = actions_of_date.ticker
            and bars.session_date = actions_of_date.ex_date
),

final as (
    select
        ticker,
        session_date,
        open,
        high,
        low,
        close,
        volume,
        adjusted_close,
        dividend_amount,
        split_ratio,
        previous_close,
        split_ratio * (close + dividend_amount) / nullif(previous_close, 0) - 1 as simple_return_1d,
        bronze_key
    from prices
)

select * from final
