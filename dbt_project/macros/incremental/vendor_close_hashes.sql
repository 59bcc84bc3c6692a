{#- The vendor's adjusted closes, as `compare_with_silver` wants them. -#}
{% macro vendor_close_hashes() %}
    (
        select
            bars.ticker,
            bars.session_date as period,
            hashfloat8extended(coalesce(bars.adjusted_close, -1), bars.session_date - date '2000-01-01') as row_hash
        from {{ ref('stg_daily_bars') }} as bars
    )
{% endmacro %}
