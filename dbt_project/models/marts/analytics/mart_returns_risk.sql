with

returns as (
    select * from {{ ref('int_daily_returns') }}
),

final as (
    select
        security_key,
        ticker,
        session_date,
        {% for sessions in [1, 5, 21, 63, 126, 252] -%}
        simple_return_{{ sessions }}d,
        {% endfor -%}
        log_return_1d,
        {% for sessions in [5, 21, 63, 126, 252] -%}
        ln(nullif(simple_return_{{ sessions }}d + 1, 0)) as log_return_{{ sessions }}d,
        {% endfor -%}
        volatility_21d,
        volatility_63d,
        volatility_252d,
        sharpe_ratio_252d,
        drawdown,
        maximum_drawdown,
        beta_252d
    from returns
)

select * from final
