{{ config(
    indexes=[{'columns': ['ticker', 'session_date'], 'unique': true}],
    meta={'period': 'session_date'},
    pre_hook="{{ take_changes_of([ref('fct_daily_prices')], on_last_scale=true) }}",
    post_hook="{{ pass_changes_on() }}",
) }}

with

prices as (
    select * from {{ changed_rows(ref('fct_daily_prices')) }} as prices
),

-- The splits after a session are all among the rows that are built with it. Their product is taken in the
-- order in which one goes back from today.
scaled as (
    select
        *,
        coalesce(
            gold.product(split_ratio) over (
                partition by ticker, security_key
                order by session_date desc
                rows between unbounded preceding and 1 preceding
            ),
            1
        ) as split_factor
    from prices
),

-- Recursions go on from the last row that is kept, in the order of a full run.
series as (
    select
        security_key,
        ticker,
        session_date,
        session_number,
        split_factor,
        high / split_factor as high,
        low / split_factor as low,
        close / split_factor as close,
        volume * split_factor as volume,
        null::double precision[] as seed,
        true as is_new
    from scaled
    {% if is_incremental() %}
    union all
    select
        security_key,
        ticker,
        session_date,
        session_number,
        split_factor,
        high,
        low,
        close,
        volume,
        case
            when row_number() over (partition by ticker order by session_date desc) = 1
                then array[
                    session_number,
                    close,
                    ema_12,
                    ema_26,
                    macd_fast,
                    macd_signal,
                    average_gain,
                    average_loss,
                    average_true_range,
                    close_total_20,
                    close_total_50,
                    close_total_200,
                    volume_total_20
                ]
        end,
        false
    from {{ kept_rows(251) }} as kept
    {% endif %}
),

-- The highest of 252 sessions is the highest of twelve spans of 21, each looked up where it ends.
spans as (
    select
        *,
        lag(close, 20, 0::double precision) over history as close_20,
        lag(close, 50, 0::double precision) over history as close_50,
        lag(close, 200, 0::double precision) over history as close_200,
        lag(volume, 20, 0::double precision) over history as volume_20,
        stddev_pop(close) over (history rows 19 preceding) as deviation_20,
        max(high) over (history rows 20 preceding) as high_21,
        min(low) over (history rows 20 preceding) as low_21
    from series
    window history as (partition by ticker, security_key order by session_date)
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
    window history as (partition by ticker, security_key order by session_date)
),

stepped as (
    select
        *,
        gold.recursive_indicators(seed, high, low, close, volume, close_20, close_50, close_200, volume_20) over (
            partition by ticker, security_key
            order by session_date
        ) as state
    from windowed
    where is_new or seed is not null
),

final as (
    select
        security_key,
        ticker,
        session_date,
        session_number,
        split_factor,
        high,
        low,
        close,
        volume,
        case when session_number >= 20 then state[10] / 20 end as sma_20,
        case when session_number >= 50 then state[11] / 50 end as sma_50,
        case when session_number >= 200 then state[12] / 200 end as sma_200,
        case when session_number >= 20 then deviation_20 end as deviation_20,
        case when session_number >= 252 then high_252 end as high_252,
        case when session_number >= 252 then low_252 end as low_252,
        case when session_number >= 20 then volume / nullif(state[13] / 20, 0) end as volume_ratio_20,
        state[3] as ema_12,
        state[4] as ema_26,
        state[5] as macd_fast,
        state[6] as macd_signal,
        state[7] as average_gain,
        state[8] as average_loss,
        state[9] as average_true_range,
        state[10] as close_total_20,
        state[11] as close_total_50,
        state[12] as close_total_200,
        state[13] as volume_total_20
    from stepped
    where is_new
)

select * from final
