{#- What the models of weekly and monthly bars make their rows of, as `compare_with_silver` wants it. -#}
{% macro bar_hashes(bars, period) %}
    (
        select
            bars.ticker,
            bars.{{ period }} as period,
            {{ bar_hash('bars', period) }} # coalesce({{ security_hash('reused.security_key', 'bars.session_date') }}, 0) as row_hash
        from {{ bars }} as bars
        left join {{ ref('int_reused_tickers') }} as reused
            on
                bars.ticker = reused.ticker
                and bars.session_date between reused.valid_from and reused.valid_to
    )
{% endmacro %}
