-- Each fall of a fifth or more from a peak: when it began, how deep it went, and when it was made good.
with

sessions as (
    select
        security_key,
        ticker,
        session_date,
        drawdown,
        count(*) filter (where drawdown = 0) over (partition by security_key order by session_date) as peak_number
    from {{ ref('mart_returns_risk') }}
),

falls as (
    select
        security_key,
        ticker,
        peak_number,
        min(session_date) as peak_on,
        min(drawdown) as depth,
        (array_agg(session_date order by drawdown, session_date))[1] as lowest_on
    from sessions
    group by security_key, ticker, peak_number
),

recovered as (
    select
        *,
        lead(peak_on) over (partition by security_key order by peak_number) as recovered_on
    from falls
)

select
    security_key,
    ticker,
    peak_on,
    lowest_on,
    recovered_on,
    depth,
    lowest_on - peak_on as days_down,
    recovered_on - lowest_on as days_up
from recovered
where depth <= -0.2
order by ticker, peak_on
