{#-
    What fct_corporate_actions makes its rows of, as `compare_with_silver` wants it. Each part has the ex-date in
    it: of two actions, equal parts would cancel each other.
-#}
{% macro corporate_action_hash(actions, reused) -%}
    hashtextextended({{ actions }}.bronze_key, {{ action_hash(actions) }})
    # coalesce(hashtextextended({{ actions }}.action_type, {{ security_hash(reused ~ '.security_key', actions ~ '.ex_date') }}), 0)
{%- endmacro %}


{% macro corporate_action_hashes() %}
    (
        select
            actions.ticker,
            actions.ex_date as period,
            {{ corporate_action_hash('actions', 'reused') }} as row_hash
        from {{ ref('int_corporate_actions') }} as actions
        left join {{ ref('int_reused_tickers') }} as reused
            on
                actions.ticker = reused.ticker
                and actions.ex_date between reused.valid_from and reused.valid_to
    )
{% endmacro %}
