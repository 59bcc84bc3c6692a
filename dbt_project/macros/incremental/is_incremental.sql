{#- dbt's own asks the database first, even where a full refresh leaves nothing to ask. -#}
{% macro is_incremental() %}
    {%- if should_full_refresh() -%}
        {{ return(false) }}
    {%- endif -%}
    {{ return(dbt.is_incremental()) }}
{% endmacro %}
