-- depends_on: {{ ref('int_reused_tickers') }}
{{ config(
    indexes=[{'columns': ['ticker'], 'unique': true}],
    pre_hook="{{ compare_with_silver(vendor_close_hashes(), source=ref('stg_daily_bars'), period='session_date') }}",
    post_hook="{{ pass_changes_on() }}",
) }}

select
    hashes.ticker,
    max(hashes.period) as session_date,
    bit_xor(hashes.row_hash) as history_hash
from {{ vendor_close_hashes() }} as hashes
{% if is_incremental() -%}
where hashes.ticker in (select changes.ticker from {{ changes() }} as changes)
{% endif -%}
group by hashes.ticker
