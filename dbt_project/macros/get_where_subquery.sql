{#-
    What a generic test looks at: of a series, the rows that were built since the test last passed;
    else all rows. A `where` of the test's own goes first.
-#}
{% macro postgres__get_where_subquery(relation) -%}
    {%- if config.get('where') or not execute or flags.WHICH != 'build' -%}
        {{ return(dbt.default__get_where_subquery(relation)) }}
    {%- endif -%}
    {%- set node = graph.nodes.values() | selectattr('name', 'equalto', relation.identifier) | first -%}
    {%- set meta = node.config.meta if node else {} -%}
    {%- set passed = run_query("select change_id from ops.gold_passed_tests where test = '" ~ model.name ~ "'") -%}
    {%- if not meta.get('period') or not passed.rows -%}
        {{ return(relation) }}
    {%- endif -%}
    {%- set is_news -%}
        changes.model = '{{ meta.get('changes_of', relation.identifier) }}' and changes.change_id > {{ passed.rows[0][0] }}
    {%- endset -%}
    {%- if run_query(
        'select exists (select from ops.gold_changes as changes where ' ~ is_news ~ ' and changes.ticker is null)'
    ).rows[0][0] -%}
        {{ return(relation) }}
    {%- endif -%}
    {%- set new_rows -%}
    (
        select tested.*
        from (
            select
                changes.ticker,
                min(coalesce(changes.kept_through, '-infinity')) as kept_through
            from ops.gold_changes as changes
            where {{ is_news }}
            group by changes.ticker
        ) as news
        cross join lateral (
            select *
            from {{ relation }}
            where ticker = news.ticker and {{ meta.period }} > news.kept_through
            offset 0
        ) as tested
    ) as dbt_subquery
    {%- endset -%}
    {{ return(new_rows) }}
{%- endmacro %}


{#- Note which tests of this run passed, at its end; one that did not looks at all rows the next time. -#}
{% macro note_passed_tests(results) %}
    {%- if not execute -%}
        {{ return('') }}
    {%- endif -%}
    {%- set ran = [] -%}
    {%- set passed = [] -%}
    {%- for result in results if result.node.resource_type == 'test' -%}
        {%- do ran.append(result.node.name) -%}
        {%- if result.status == 'pass' -%}
            {%- do passed.append(result.node.name) -%}
        {%- endif -%}
    {%- endfor -%}
    {%- set known = graph.nodes.values() | selectattr('resource_type', 'equalto', 'test') | map(attribute='name') -%}
    delete from ops.gold_passed_tests
    where test = any('{{ '{' ~ ran | join(',') ~ '}' }}') or test <> all('{{ '{' ~ known | join(',') ~ '}' }}');

    insert into ops.gold_passed_tests (test, change_id)
    select
        passed.test,
        coalesce((select max(changes.change_id) from ops.gold_changes as changes), 0)
    from unnest('{{ '{' ~ passed | join(',') ~ '}' }}'::text[]) as passed (test)
{% endmacro %}
