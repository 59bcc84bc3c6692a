-- depends_on: {{ ref('int_daily_hashes') }} {{ ref('stg_daily_bars') }} {{ ref('int_reused_tickers') }}
{{ config(
    meta={'period': 'session_date'},
    pre_hook="{{ compare_with_silver(ref('int_daily_hashes'), source=ref('stg_daily_bars')) }}",
    post_hook="{{ pass_changes_on() }}",
) }}

with

inputs as (
    select * from {{ changed_rows(ref('int_daily_inputs')) }} as inputs
),

-- Each security is a series of its own. The last row that is kept is taken for the product of all up to it.
steps as (
    select
        *,
        1 as session_number,
        null::double precision as kept_return_index,
        null::double precision as kept_split_index,
        false as is_kept
    from inputs
    {% if is_incremental() %}
    union all
    select
        security_key,
        ticker,
        session_date,
        open,
        high,
        low,
        close,
        volume,
        dividend_amount,
        split_ratio,
        history_hash,
        session_number,
        total_return_index,
        split_index,
        true
    from {{ kept_rows(1) }} as kept
    {% endif %}
),

priced as (
    select
        *,
        lag(close) over series as previous_close,
        lag(session_date) over series as previous_session
    from steps
    window series as (partition by ticker, security_key order by session_date)
),

grown as (
    select
        *,
        split_ratio * (close + dividend_amount) / nullif(previous_close, 0) as growth
    from priced
),

chained as (
    select
        *,
        sum(session_number) over series as sessions_so_far,
        gold.product(coalesce(kept_split_index, split_ratio)) over series as splits_so_far,
        gold.product(coalesce(kept_return_index, growth, 1)) over series as growth_so_far,
        bit_xor(row_hash) over (partition by ticker order by session_date) as history_hash
    from grown
    window series as (partition by ticker, security_key order by session_date)
),

final as (
    select
        security_key,
        ticker,
        session_date,
        open,
        high,
        low,
        close,
        volume,
        dividend_amount,
        split_ratio,
        previous_session,
        previous_close,
        growth - 1 as simple_return_1d,
        splits_so_far as split_index,
        growth_so_far as total_return_index,
        sessions_so_far::integer as session_number,
        history_hash
    from chained
    where not is_kept
)

select * from final
