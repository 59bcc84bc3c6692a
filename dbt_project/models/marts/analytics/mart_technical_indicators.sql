with

indicators as (
    select * from {{ ref('int_daily_indicators') }}
),

last_sessions as (
    select * from {{ ref('int_last_sessions') }}
),

-- TA-Lib takes what is nearer to zero than this for zero.
{% set epsilon = '1e-14' -%}
scaled as (
    select
        indicators.security_key,
        indicators.ticker,
        indicators.session_date,
        indicators.session_number,
        indicators.close / last_sessions.split_index as close,
        indicators.sma_20 / last_sessions.split_index as sma_20,
        indicators.sma_50 / last_sessions.split_index as sma_50,
        indicators.sma_200 / last_sessions.split_index as sma_200,
        indicators.ema_12 / last_sessions.split_index as ema_12,
        indicators.ema_26 / last_sessions.split_index as ema_26,
        indicators.macd_fast / last_sessions.split_index as macd_fast,
        indicators.macd_signal / last_sessions.split_index as macd_signal,
        indicators.average_gain / last_sessions.split_index as average_gain,
        indicators.average_loss / last_sessions.split_index as average_loss,
        indicators.average_true_range / last_sessions.split_index as average_true_range,
        indicators.deviation_20 / last_sessions.split_index as deviation_20,
        indicators.high_252 / last_sessions.split_index as high_252,
        indicators.low_252 / last_sessions.split_index as low_252,
        indicators.volume_ratio_20
    from indicators
    inner join last_sessions on indicators.ticker = last_sessions.ticker
),

final as (
    select
        security_key,
        ticker,
        session_date,
        close,
        sma_20,
        sma_50,
        sma_200,
        case when session_number >= 12 then ema_12 end as ema_12,
        case when session_number >= 26 then ema_26 end as ema_26,
        case when session_number >= 34 then macd_fast - ema_26 end as macd,
        case when session_number >= 34 then macd_signal end as macd_signal,
        case when session_number >= 34 then macd_fast - ema_26 - macd_signal end as macd_histogram,
        case
            when session_number < 15 then null
            when average_gain + average_loss < {{ epsilon }} then 0
            else 100 * (average_gain / (average_gain + average_loss))
        end as rsi_14,
        case when session_number >= 15 then average_true_range end as atr_14,
        sma_20 + 2 * deviation_20 as bollinger_upper,
        sma_20 as bollinger_middle,
        sma_20 - 2 * deviation_20 as bollinger_lower,
        high_252 as high_52w,
        low_252 as low_52w,
        volume_ratio_20
    from scaled
)

select * from final
