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
        case when prices.simple_return_1d is not null then benchmark.simple_return_1d end as benchmark_return,
        case when benchmark.simple_return_1d is not null then prices.simple_return_1d end as paired_return
    from prices
    left join benchmark on prices.session_date = benchmark.session_date
),

{% if is_incremental() -%}
kept as (
    select
        *,
        row_number() over (partition by ticker order by session_date desc) = 1 as is_last
    from {{ kept_rows(252) }} as kept
),
{%- endif %}

-- Sums go on from the last row that is kept, in the order of a full run.
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
        (benchmark_return is not null)::integer as pairs,
        coalesce(paired_return, 0) as paired_sum,
        coalesce(benchmark_return, 0) as benchmark_sum,
        coalesce(benchmark_return * benchmark_return, 0) as benchmark_square_sum,
        coalesce(paired_return * benchmark_return, 0) as product_sum,
        total_return_index as peak,
        null::double precision as kept_maximum_drawdown,
        true as is_new
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
        pairs,
        paired_sum,
        benchmark_sum,
        benchmark_square_sum,
        product_sum,
        peak,
        maximum_drawdown,
        false
    from kept
    where is_last
    {% endif %}
),

summed as (
    select
        security_key,
        ticker,
        session_date,
        session_number,
        total_return_index,
        simple_return_1d,
        log_return_1d,
        benchmark_return,
        sum(log_sum) over history as log_sum,
        sum(log_square_sum) over history as log_square_sum,
        (sum(pairs) over history)::integer as pairs,
        sum(paired_sum) over history as paired_sum,
        sum(benchmark_sum) over history as benchmark_sum,
        sum(benchmark_square_sum) over history as benchmark_square_sum,
        sum(product_sum) over history as product_sum,
        max(peak) over history as peak,
        kept_maximum_drawdown,
        is_new
    from steps
    window history as (partition by ticker order by session_date)
),

series as (
    select
        *,
        min(coalesce(kept_maximum_drawdown, total_return_index / peak - 1)) over (
            partition by ticker
            order by session_date
        ) as maximum_drawdown
    from summed
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
        pairs,
        paired_sum,
        benchmark_sum,
        benchmark_square_sum,
        product_sum,
        peak,
        null,
        false,
        maximum_drawdown
    from kept
    where not is_last
    {% endif %}
),

-- Before a window is full, the sums at its start are those before the first session.
windowed as (
    select
        *,
        {% for sessions in [5, 21, 63, 126, 252] -%}
        total_return_index / lag(total_return_index, {{ sessions }}) over history - 1 as simple_return_{{ sessions }}d,
        {% endfor -%}
        {% for sessions in [21, 63, 252] -%}
        log_sum - lag(log_sum, {{ sessions }}, 0::double precision) over history as log_sum_{{ sessions }},
        log_square_sum - lag(log_square_sum, {{ sessions }}, 0::double precision) over history
            as log_square_sum_{{ sessions }},
        {% endfor -%}
        pairs - lag(pairs, 252, 0) over history as pairs_252,
        {% for name in ['paired', 'benchmark', 'benchmark_square', 'product'] -%}
        {{ name }}_sum - lag({{ name }}_sum, 252, 0::double precision) over history as {{ name }}_sum_252{{ ',' if not loop.last }}
        {% endfor -%}
    from series
    window history as (partition by ticker order by session_date)
),

measured as (
    select
        *,
        {% for sessions in [21, 63, 252] -%}
        case
            when session_number > {{ sessions }}
                then sqrt(greatest(log_square_sum_{{ sessions }} - log_sum_{{ sessions }} ^ 2 / {{ sessions }}, 0) / {{ sessions - 1 }})
        end as deviation_{{ sessions }},
        {% endfor -%}
        case
            when pairs_252 >= {{ var('beta_minimum_sessions') }}
                then product_sum_252 - paired_sum_252 * benchmark_sum_252 / pairs_252
        end as covariation,
        benchmark_square_sum_252 - benchmark_sum_252 ^ 2 / nullif(pairs_252, 0) as benchmark_variation
    from windowed
    where is_new
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
                then (log_sum_252 / 252 - {{ var('risk_free_rate') }} / 252) / deviation_252 * sqrt(252)
        end as sharpe_ratio_252d,
        total_return_index / peak - 1 as drawdown,
        maximum_drawdown,
        case when benchmark_variation > 1e-18 then covariation / benchmark_variation end as beta_252d,
        benchmark_return,
        log_sum,
        log_square_sum,
        pairs,
        paired_sum,
        benchmark_sum,
        benchmark_square_sum,
        product_sum,
        peak
    from measured
)

select * from final
