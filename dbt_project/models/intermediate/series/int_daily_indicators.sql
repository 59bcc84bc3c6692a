{{ config(
    indexes=[{'columns': ['ticker', 'session_date'], 'unique': true}],
    meta={'period': 'session_date'},
    pre_hook="{{ take_changes_of([ref('fct_daily_prices')]) }}",
    post_hook="{{ pass_changes_on() }}",
) }}

with

prices as (
    select
        security_key,
        ticker,
        session_date,
        session_number,
        high * split_index as high,
        low * split_index as low,
        close * split_index as close,
        volume / split_index as volume
    from {{ changed_rows(ref('fct_daily_prices')) }} as prices
),

{% if is_incremental() -%}
kept as (
    select
        *,
        row_number() over (partition by ticker order by session_date desc) = 1 as is_last
    from {{ kept_rows(251) }} as kept
),
{%- endif %}

-- Sums and recursions go on from the last row that is kept, in the order of a full run.
steps as (
    select
        *,
        close as close_sum,
        volume as volume_sum,
        null::double precision[] as seed
    from prices
    {% if is_incremental() %}
    union all
    select
        security_key,
        ticker,
        session_date,
        session_number,
        high,
        low,
        close,
        volume,
        close_sum,
        volume_sum,
        array[
            session_number,
            close,
            ema_12,
            ema_26,
            macd_fast,
            macd_signal,
            average_gain,
            average_loss,
            average_true_range
        ]
    from kept
    where is_last
    {% endif %}
),

stepped as (
    select
        security_key,
        ticker,
        session_date,
        session_number,
        high,
        low,
        close,
        volume,
        sum(close_sum) over history as close_sum,
        sum(volume_sum) over history as volume_sum,
        gold.recursive_indicators(seed, high, low, close) over history as state,
        seed is null as is_new
    from steps
    window history as (partition by ticker order by session_date)
),

series as (
    select * from stepped
    {% if is_incremental() %}
    union all
    select
        security_key,
        ticker,
        session_date,
        session_number,
        high,
        low,
        close,
        volume,
        close_sum,
        volume_sum,
        null,
        false
    from kept
    where not is_last
    {% endif %}
),

-- The highest of 252 sessions is the highest of twelve spans of 21, each looked up where it ends.
spans as (
    select
        *,
        close_sum - lag(close_sum, 20, 0::double precision) over history as close_sum_20,
        close_sum - lag(close_sum, 50, 0::double precision) over history as close_sum_50,
        close_sum - lag(close_sum, 200, 0::double precision) over history as close_sum_200,
        volume_sum - lag(volume_sum, 20, 0::double precision) over history as volume_sum_20,
        stddev_pop(close) over (history rows 19 preceding) as deviation_20,
        max(high) over (history rows 20 preceding) as high_21,
        min(low) over (history rows 20 preceding) as low_21
    from series
    window history as (partition by ticker order by session_date)
),

windowed as (
    select
        *,
        greatest(
            high_21
            {%- for span in range(1, 12) %}, lag(high_21, {{ span * 21 }}) over history{% endfor %}
        ) as high_252,
        least(
            low_21
            {%- for span in range(1, 12) %}, lag(low_21, {{ span * 21 }}) over history{% endfor %}
        ) as low_252
    from spans
    window history as (partition by ticker order by session_date)
),

final as (
    select
        security_key,
        ticker,
        session_date,
        session_number,
        high,
        low,
        close,
        volume,
        close_sum,
        volume_sum,
        case when session_number >= 20 then close_sum_20 / 20 end as sma_20,
        case when session_number >= 50 then close_sum_50 / 50 end as sma_50,
        case when session_number >= 200 then close_sum_200 / 200 end as sma_200,
        case when session_number >= 20 then deviation_20 end as deviation_20,
        case when session_number >= 252 then high_252 end as high_252,
        case when session_number >= 252 then low_252 end as low_252,
        case when session_number >= 20 then volume / nullif(volume_sum_20 / 20, 0) end as volume_ratio_20,
        state[3] as ema_12,
        state[4] as ema_26,
        state[5] as macd_fast,
        state[6] as macd_signal,
        state[7] as average_gain,
        state[8] as average_loss,
        state[9] as average_true_range
    from windowed
    where is_new
)

select * from final
