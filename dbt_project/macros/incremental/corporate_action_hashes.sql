{#- What fct_corporate_actions makes its rows of, as `compare_with_silver` wants it. -#}
{% macro corporate_action_hash(actions, reused) -%}
    {{ action_hash(actions) }}
    # hashtextextended({{ actions }}.bronze_key, {{ actions }}.row_version)
    # coalesce(hashtextextended({{ actions }}.action_type, {{ reused }}.security_key), 0)
{%- endmacro %}


{% macro corporate_action_hashes() %}
    (
        select
            actions.ticker,
            actions.ex_date as period,
            {{ corporate_action_hash('actions', 'reused') }} as row_hash
        from {{ ref('stg_corporate_actions') }} as actions
        left join {{ ref('int_reused_tickers') }} as reused
            on
                actions.ticker = reused.ticker
                and actions.ex_date between reused.valid_from and reused.valid_to
    )
{% endmacro %}
