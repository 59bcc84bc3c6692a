{{ config(
    meta={'period': 'week_start'},
    pre_hook="{{ compare_with_silver(bar_hashes(ref('stg_weekly_bars'), 'week_start'), source=ref('stg_weekly_bars')) }}",
    post_hook="{{ pass_changes_on() }}",
) }}

with

bars as (
    select * from {{ changed_rows(ref('stg_weekly_bars'), period='week_start') }} as bars
),

reused as (
    select * from {{ ref('int_reused_tickers') }}
),

steps as (
    select
        coalesce(reused.security_key, {{ first_security_key('bars.ticker') }}) as security_key,
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
        bars.is_complete,
        bars.bronze_key,
        {{ bar_hash('bars', 'week_start') }}
        # coalesce({{ security_hash('reused.security_key', 'bars.session_date') }}, 0) as row_hash,
        true as is_new
    from bars
    left join reused
        on
            bars.ticker = reused.ticker
            and bars.session_date between reused.valid_from and reused.valid_to
    {% if is_incremental() %}
    union all
    select
        security_key,
        ticker,
        week_start,
        session_date,
        open,
        high,
        low,
        close,
        volume,
        adjusted_close,
        dividend_amount,
        is_complete,
        bronze_key,
        history_hash,
        false
    from {{ kept_rows(1) }} as kept
    {% endif %}
),

chained as (
    select
        *,
        lag(adjusted_close) over (partition by ticker, security_key order by week_start) as previous_adjusted_close,
        bit_xor(row_hash) over (partition by ticker order by week_start) as history_hash
    from steps
),

final as (
    select
        chained.security_key,
        chained.ticker,
        chained.week_start,
        chained.session_date,
        chained.open,
        chained.high,
        chained.low,
        chained.close,
        chained.volume,
        chained.adjusted_close,
        chained.dividend_amount,
        chained.adjusted_close / nullif(chained.previous_adjusted_close, 0) - 1 as simple_return_1w,
        chained.is_complete,
        chained.history_hash,
        chained.bronze_key
    from chained
    where chained.is_new
)

select * from final
