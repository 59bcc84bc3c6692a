with

tickers as (
    select * from {{ ref('dim_company') }}
),

last_sessions as (
    select *
    from {{ ref('int_last_sessions') }}
    where is_latest
),

last_weeks as (
    select last_week.*
    from tickers
    cross join lateral (
        select *
        from {{ ref('int_weekly_series') }} as weeks
        where weeks.ticker = tickers.ticker
        order by weeks.week_start desc, weeks.session_date desc
        limit 1
    ) as last_week
),

days as (
    select
        prices.security_key,
        prices.ticker,
        prices.session_date,
        prices.open,
        prices.high,
        prices.low,
        prices.close,
        prices.volume,
        prices.previous_close / prices.split_ratio as previous_close,
        risks.simple_return_1d,
        risks.simple_return_5d,
        risks.simple_return_21d,
        risks.simple_return_63d,
        risks.simple_return_126d,
        risks.simple_return_252d,
        risks.volatility_252d,
        risks.beta_252d,
        risks.drawdown,
        indicators.sma_50,
        indicators.sma_200,
        indicators.rsi_14,
        indicators.high_52w,
        indicators.low_52w,
        indicators.volume_ratio_20
    from last_sessions
    cross join lateral (
        select *
        from {{ ref('fct_daily_prices') }} as rows_of_ticker
        where
            rows_of_ticker.ticker = last_sessions.ticker
            and rows_of_ticker.session_date = last_sessions.session_date
        limit 1
    ) as prices
    cross join lateral (
        select *
        from {{ ref('mart_returns_risk') }} as rows_of_ticker
        where
            rows_of_ticker.ticker = last_sessions.ticker
            and rows_of_ticker.session_date = last_sessions.session_date
        limit 1
    ) as risks
    cross join lateral (
        select *
        from {{ ref('mart_technical_indicators') }} as rows_of_ticker
        where
            rows_of_ticker.ticker = last_sessions.ticker
            and rows_of_ticker.session_date = last_sessions.session_date
        limit 1
    ) as indicators
),

weeks as (
    select
        last_weeks.security_key,
        last_weeks.ticker,
        last_weeks.growth - 1 as simple_return_1w,
        last_weeks.high_52w / last_weeks.split_index as high_52w,
        last_weeks.low_52w / last_weeks.split_index as low_52w,
        last_weeks.total_return_index / year_ago.total_return_index - 1 as simple_return_52w,
        recent.recent_adjusted_closes
    from last_weeks
    left join lateral (
        select weeks.total_return_index
        from {{ ref('int_weekly_series') }} as weeks
        where
            weeks.ticker = last_weeks.ticker
            and weeks.security_key = last_weeks.security_key
        order by weeks.week_start desc
        offset 52
        limit 1
    ) as year_ago on true
    cross join lateral (
        select
            array_agg(
                last_weeks.close * (newest.total_return_index / last_weeks.total_return_index)
                order by newest.week_start
            ) as recent_adjusted_closes
        from (
            select
                weeks.week_start,
                weeks.total_return_index
            from {{ ref('int_weekly_series') }} as weeks
            where
                weeks.ticker = last_weeks.ticker
                and weeks.security_key = last_weeks.security_key
            order by weeks.week_start desc
            limit 20
        ) as newest
    ) as recent
),

vendor_weeks as (
    select
        tickers.ticker,
        last_week.*
    from tickers
    cross join lateral (
        select
            weeks.security_key,
            weeks.session_date,
            weeks.open,
            weeks.high,
            weeks.low,
            weeks.close,
            weeks.volume
        from {{ ref('fct_weekly_prices') }} as weeks
        where weeks.ticker = tickers.ticker
        order by weeks.week_start desc
        limit 1
    ) as last_week
),

final as (
    select
        coalesce(days.security_key, vendor_weeks.security_key) as security_key,
        tickers.ticker,
        tickers.company_name,
        tickers.sector,
        tickers.currency,
        case when days.ticker is not null then 'daily' else 'weekly' end as price_source,
        coalesce(days.session_date, vendor_weeks.session_date) as session_date,
        coalesce(days.open, vendor_weeks.open) as open,
        coalesce(days.high, vendor_weeks.high) as high,
        coalesce(days.low, vendor_weeks.low) as low,
        coalesce(days.close, vendor_weeks.close) as close,
        coalesce(days.volume, vendor_weeks.volume) as volume,
        days.close - days.previous_close as change,
        days.close / nullif(days.previous_close, 0) - 1 as change_fraction,
        days.simple_return_1d,
        coalesce(days.simple_return_5d, weeks.simple_return_1w) as simple_return_1w,
        days.simple_return_21d as simple_return_1m,
        days.simple_return_63d as simple_return_3m,
        days.simple_return_126d as simple_return_6m,
        coalesce(days.simple_return_252d, weeks.simple_return_52w) as simple_return_1y,
        coalesce(days.high_52w, weeks.high_52w) as high_52w,
        coalesce(days.low_52w, weeks.low_52w) as low_52w,
        case
            when days.high_52w is not null then 'daily'
            when weeks.high_52w is not null then 'weekly'
        end as range_source,
        days.sma_50,
        days.sma_200,
        days.rsi_14,
        days.volume_ratio_20,
        days.volatility_252d,
        days.beta_252d,
        days.drawdown,
        weeks.recent_adjusted_closes
    from tickers
    left join vendor_weeks on tickers.ticker = vendor_weeks.ticker
    -- Daily bars that end before the ticker became another security's say nothing of that one.
    left join days
        on
            tickers.ticker = days.ticker
            and (
                vendor_weeks.ticker is null
                or days.security_key = vendor_weeks.security_key
                or days.session_date > vendor_weeks.session_date
            )
    left join weeks
        on
            tickers.ticker = weeks.ticker
            and coalesce(days.security_key, vendor_weeks.security_key) = weeks.security_key
    where days.ticker is not null or vendor_weeks.ticker is not null
)

select * from final
