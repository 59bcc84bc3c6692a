with

bars as (
    select * from {{ ref('stg_daily_bars') }}
),

-- After a halt, several actions may count in one session: a dividend is per share after all of their splits.
actions as (
    select
        ticker,
        session_date,
        sum(dividend_amount / splits_after order by ex_date) as dividend_amount,
        case when bool_or(action_type = 'split') then gold.product(coalesce(split_ratio, 1) order by ex_date) end as split_ratio,
        bit_xor(row_hash) as row_hash
    from (
        select
            *,
            {{ action_hash('actions') }} as row_hash,
            coalesce(gold.product(coalesce(split_ratio, 1)) over (
                partition by ticker, session_date
                order by ex_date desc
                groups between unbounded preceding and 1 preceding
            ), 1) as splits_after
        from {{ ref('int_corporate_actions') }} as actions
        where session_date is not null
    ) as actions
    group by ticker, session_date
),

reused as (
    select * from {{ ref('int_reused_tickers') }}
),

final as (
    select
        coalesce(reused.security_key, {{ first_security_key('bars.ticker') }}) as security_key,
        bars.ticker,
        bars.session_date,
        bars.open,
        bars.high,
        bars.low,
        bars.close,
        bars.volume,
        coalesce(actions.dividend_amount, bars.dividend_amount, 0) as dividend_amount,
        coalesce(actions.split_ratio, bars.split_coefficient, 1) as split_ratio,
        {{ daily_bar_hash('bars') }}
        # coalesce(actions.row_hash, 0)
        # coalesce({{ security_hash('reused.security_key', 'bars.session_date') }}, 0) as row_hash
    from bars
    left join actions
        on
            bars.ticker = actions.ticker
            and bars.session_date = actions.session_date
    left join reused
        on
            bars.ticker = reused.ticker
            and bars.session_date between reused.valid_from and reused.valid_to
)

select * from final
