with

indicators as (
    select * from {{ ref('int_daily_indicators') }}
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
            when average_gain + average_loss = 0 then 0
            else 100 * (average_gain / (average_gain + average_loss))
        end as rsi_14,
        case when session_number >= 15 then average_true_range end as atr_14,
        sma_20 + 2 * deviation_20 as bollinger_upper,
        sma_20 as bollinger_middle,
        sma_20 - 2 * deviation_20 as bollinger_lower,
        high_252 as high_52w,
        low_252 as low_52w,
        volume_ratio_20
    from indicators
)

select * from final
