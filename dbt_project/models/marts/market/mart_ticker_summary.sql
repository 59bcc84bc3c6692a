with

last_sessions as (
    select *
    from {{ ref('int_last_sessions') }}
    where is_latest
),

companies as (
    select * from {{ ref('dim_company') }}
),

actions as (
    select
        actions.ticker,
        count(actions.dividend_amount)::integer as dividends,
        count(actions.split_ratio)::integer as splits,
        max(actions.ex_date) filter (where actions.dividend_amount is not null) as last_dividend_on,
        max(actions.ex_date) filter (where actions.split_ratio is not null) as last_split_on
    from {{ ref('fct_corporate_actions') }} as actions
    inner join last_sessions
        on
            actions.ticker = last_sessions.ticker
            and actions.security_key = last_sessions.security_key
            and actions.ex_date <= last_sessions.session_date
    group by actions.ticker
),

risks as (
    select risks.*
    from last_sessions
    cross join lateral (
        select *
        from {{ ref('int_daily_returns') }} as rows_of_ticker
        where
            rows_of_ticker.ticker = last_sessions.ticker
            and rows_of_ticker.session_date = last_sessions.session_date
        limit 1
    ) as risks
),

final as (
    select
        last_sessions.security_key,
        last_sessions.ticker,
        companies.company_name,
        companies.sector,
        last_sessions.first_session,
        last_sessions.session_date as last_session,
        last_sessions.session_number as sessions,
        last_sessions.close,
        last_sessions.total_return_index - 1 as simple_return_total,
        case
            when last_sessions.session_date - last_sessions.first_session >= 365
                then last_sessions.total_return_index
                    ^ (365.25 / (last_sessions.session_date - last_sessions.first_session)) - 1
        end as simple_return_yearly,
        case
            when last_sessions.session_number > 2
                then sqrt(
                    greatest(risks.log_square_sum - risks.log_sum ^ 2 / (last_sessions.session_number - 1), 0)
                    / (last_sessions.session_number - 2) * 252
                )
        end as volatility,
        risks.volatility_252d,
        risks.sharpe_ratio_252d,
        risks.beta_252d,
        risks.drawdown,
        risks.maximum_drawdown,
        coalesce(actions.dividends, 0) as dividends,
        actions.last_dividend_on,
        coalesce(actions.splits, 0) as splits,
        actions.last_split_on
    from last_sessions
    inner join risks on last_sessions.ticker = risks.ticker
    left join companies on last_sessions.ticker = companies.ticker
    left join actions on last_sessions.ticker = actions.ticker
)

select * from final
