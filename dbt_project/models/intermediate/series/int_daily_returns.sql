{{ config(
    indexes=[{'columns': ['ticker', 'session_date'], 'unique': true}],
    meta={'period': 'session_date'},
    pre_hook="{{ take_changes_of([ref('fct_daily_prices')], for_all=benchmark()) }}",
    post_hook="{{ pass_changes_on(depends_on=benchmark()) }}",
) }}

with

prices as (
    select * from {{ changed_rows(ref('fct_daily_prices')) }} as prices
),

benchmark as (
    select
        session_date,
        simple_return_1d
    from {{ ref('fct_daily_prices') }}
    where ticker = ({{ benchmark() }})
),

returns as (
    select
        prices.security_key,
        prices.ticker,
        prices.session_date,
        prices.session_number,
        prices.total_return_index,
        prices.simple_return_1d,
        ln(nullif(prices.simple_return_1d + 1, 0)) as log_return_1d,
        case when prices.simple_return_1d is not null then benchmark.simple_return_1d end as benchmark_return
    from prices
    left join benchmark on prices.session_date = benchmark.session_date
),

-- Sums and extremes of the whole history go on from the last row that is kept, in the order of a full run.
steps as (
    select
        security_key,
        ticker,
        session_date,
        session_number,
        total_return_index,
        simple_return_1d,
        log_return_1d,
        benchmark_return,
        coalesce(log_return_1d, 0) as log_sum,
        coalesce(log_return_1d * log_return_1d, 0) as log_square_sum,
        total_return_index as peak,
        null::double precision as kept_maximum_drawdown,
        true as is_new,
        true as is_step
    from returns
    {% if is_incremental() %}
    union all
    select
        security_key,
        ticker,
        session_date,
        session_number,
        total_return_index,
        simple_return_1d,
        log_return_1d,
        benchmark_return,
        log_sum,
        log_square_sum,
        peak,
        maximum_drawdown,
        false,
        row_number() over (partition by ticker order by session_date desc) = 1
    from {{ kept_rows(252) }} as kept
    {% endif %}
),

-- A window of 252 sessions is made of four of 63, each of three of 21, each of three of 7, which are looked
-- up where they end: nothing is taken off a sum, so a window knows nothing of what was before it.
spans_of_7 as (
    select
        *,
        sum(log_return_1d) over span as log_sum_7,
        var_pop(log_return_1d) over span * count(log_return_1d) over span as log_variation_7,
        count(paired_return) over span as pairs_7,
        coalesce(sum(paired_return) over span, 0) as paired_sum_7,
        coalesce(sum(benchmark_return) over span, 0) as benchmark_sum_7,
        coalesce(sum(benchmark_return * benchmark_return) over span, 0) as benchmark_square_sum_7,
        coalesce(sum(paired_return * benchmark_return) over span, 0) as product_sum_7
    from (
        select
            *,
            case when benchmark_return is not null then simple_return_1d end as paired_return
        from steps
    ) as steps
    window span as (partition by ticker, security_key order by session_date rows 6 preceding)
),

{% set sums = ['pairs', 'paired_sum', 'benchmark_sum', 'benchmark_square_sum', 'product_sum'] -%}
{%- for whole, part in [(21, 7), (63, 21), (252, 63)] -%}
{%- set lags = range(0, whole, part) -%}
spans_of_{{ whole }} as (
    select
        *,
        log_variation_parts_{{ whole }}
        {%- for lag in lags %}
        + {{ part }} * (log_sum_{{ part }}_{{ lag }} / {{ part }} - log_sum_{{ whole }} / {{ whole }}) ^ 2
        {%- endfor %} as log_variation_{{ whole }}
    from (
        select
            *,
            {% for lag in lags -%}
            lag(log_sum_{{ part }}, {{ lag }}) over history as log_sum_{{ part }}_{{ lag }},
            {% endfor -%}
            {% for lag in lags %}{{ ' + ' if not loop.first }}lag(log_sum_{{ part }}, {{ lag }}) over history{% endfor %}
                as log_sum_{{ whole }},
            {% for lag in lags %}{{ ' + ' if not loop.first }}lag(log_variation_{{ part }}, {{ lag }}) over history{% endfor %}
                as log_variation_parts_{{ whole }},
            {% for name in sums -%}
            {% for lag in lags %}{{ ' + ' if not loop.first }}
            {%- if lag %}lag({{ name }}_{{ part }}, {{ lag }}, 0{{ '::bigint' if name == 'pairs' else '::double precision' }}) over history
            {%- else %}{{ name }}_{{ part }}{% endif %}{% endfor %} as {{ name }}_{{ whole }}{{ ',' if not loop.last }}
            {% endfor %}
        from spans_of_{{ part }}
        window history as (partition by ticker, security_key order by session_date)
    ) as spans
),

{% endfor -%}

windowed as (
    select
        *
        {%- for sessions in [5, 21, 63, 126, 252] %},
        total_return_index / lag(total_return_index, {{ sessions }}) over history - 1 as simple_return_{{ sessions }}d
        {%- endfor %}
    from spans_of_252
    window history as (partition by ticker, security_key order by session_date)
),

summed as (
    select
        security_key,
        ticker,
        session_date,
        session_number,
        total_return_index,
        simple_return_1d,
        {% for sessions in [5, 21, 63, 126, 252] -%}
        simple_return_{{ sessions }}d,
        {% endfor -%}
        log_return_1d,
        benchmark_return,
        {% for sessions in [21, 63, 252] -%}
        case when session_number > {{ sessions }} then sqrt(log_variation_{{ sessions }} / {{ sessions - 1 }}) end
            as deviation_{{ sessions }},
        {% endfor -%}
        case when session_number > 252 then log_sum_252 / 252 end as mean_252,
        case
            when pairs_252 >= {{ var('beta_minimum_sessions') }}
                then product_sum_252 - paired_sum_252 * benchmark_sum_252 / pairs_252
        end as covariation,
        benchmark_square_sum_252 - benchmark_sum_252 ^ 2 / nullif(pairs_252, 0) as benchmark_variation,
        sum(log_sum) over history as log_sum,
        sum(log_square_sum) over history as log_square_sum,
        max(peak) over history as peak,
        kept_maximum_drawdown,
        is_new
    from windowed
    where is_step
    window history as (partition by ticker, security_key order by session_date)
),

measured as (
    select
        *,
        min(coalesce(kept_maximum_drawdown, total_return_index / peak - 1)) over (
            partition by ticker, security_key
            order by session_date
        ) as maximum_drawdown
    from summed
),

final as (
    select
        security_key,
        ticker,
        session_date,
        session_number,
        total_return_index,
        simple_return_1d,
        simple_return_5d,
        simple_return_21d,
        simple_return_63d,
        simple_return_126d,
        simple_return_252d,
        log_return_1d,
        deviation_21 * sqrt(252) as volatility_21d,
        deviation_63 * sqrt(252) as volatility_63d,
        deviation_252 * sqrt(252) as volatility_252d,
        -- Below a ten-billionth a deviation is what rounding leaves of equal returns.
        case
            when deviation_252 > 1e-10
                then (mean_252 - {{ var('risk_free_rate') }} / 252) / deviation_252 * sqrt(252)
        end as sharpe_ratio_252d,
        total_return_index / peak - 1 as drawdown,
        maximum_drawdown,
        case when benchmark_variation > 1e-18 then covariation / benchmark_variation end as beta_252d,
        benchmark_return,
        log_sum,
        log_square_sum,
        peak
    from measured
    where is_new
)

select * from final
