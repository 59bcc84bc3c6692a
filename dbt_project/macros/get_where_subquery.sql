{#-
    What a generic test looks at: of a series that this very run has brought up to date, the rows
    that it built, as the others passed before; else all rows. A `where` of the test's own goes first.
-#}
{% macro postgres__get_where_subquery(relation) -%}
    {%- if config.get('where') or not execute or flags.WHICH != 'build' -%}
        {{ return(dbt.default__get_where_subquery(relation)) }}
    {%- endif -%}
    {%- set node = graph.nodes.values() | selectattr('name', 'equalto', relation.identifier) | first -%}
    {%- set meta = node.config.meta if node else {} -%}
    {%- set source = meta.get('changes_of', relation.identifier) -%}
    {%- if not meta.get('period') or not was_brought_up_to_date(source) -%}
        {{ return(relation) }}
    {%- endif -%}
    {%- set new_rows -%}
    (
        select tested.*
        from ops.gold_changes as changes
        cross join lateral (
            select *
            from {{ relation }}
            where ticker = changes.ticker and {{ meta.period }} > coalesce(changes.kept_through, '-infinity')
            offset 0
        ) as tested
        where changes.model = '{{ source }}' and changes.run_id = '{{ invocation_id }}'
    ) as dbt_subquery
    {%- endset -%}
    {{ return(new_rows) }}
{%- endmacro %}


{#- Whether this run built rows of some tickers of the series, and not all of it or nothing. -#}
{% macro was_brought_up_to_date(name) -%}
    {%- set found = run_query(
        "select exists (select from ops.gold_offsets as offsets"
        ~ " where offsets.model = '" ~ name ~ "' and offsets.run_id = '" ~ invocation_id ~ "')"
        ~ " and not exists (select from ops.gold_changes as changes"
        ~ " where changes.model = '" ~ name ~ "' and changes.run_id = '" ~ invocation_id ~ "'"
        ~ " and changes.ticker is null)"
    ) -%}
    {{ return(found.rows[0][0]) }}
{%- endmacro %}
