-- depends_on: {{ ref('int_daily_hashes') }} {{ ref('stg_daily_bars') }}
{{ config(
    meta={'period': 'session_date'},
    pre_hook="{{ compare_with_silver(ref('int_daily_hashes'), source=ref('stg_daily_bars')) }}",
    post_hook="{{ pass_changes_on() }}",
) }}

with

inputs as (
    select * from {{ changed_rows(ref('int_daily_inputs')) }} as inputs
),

-- The last row that is kept is taken for the product of all rows up to it.
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
        vendor_adjusted_close,
        dividend_amount,
        split_ratio,
        bronze_key,
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
        lag(close) over (partition by ticker order by session_date) as previous_close
    from steps
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
        sum(session_number) over history as sessions_so_far,
        gold.product(coalesce(kept_split_index, split_ratio)) over history as splits_so_far,
        gold.product(coalesce(kept_return_index, growth, 1)) over history as growth_so_far,
        bit_xor(row_hash) over history as history_hash
    from grown
    window history as (partition by ticker order by session_date)
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
        vendor_adjusted_close,
        dividend_amount,
        split_ratio,
        previous_close,
        growth - 1 as simple_return_1d,
        splits_so_far as split_index,
        growth_so_far as total_return_index,
        sessions_so_far::integer as session_number,
        history_hash,
        bronze_key
    from chained
    where not is_kept
)

select * from final
