{#-
    The same for models across tickers: the sessions after the last one before which no ticker of
    `upstream` changed are built anew. When `depends_on`, a query for one text, has another result
    than last time, all are.
-#}
{% macro take_sessions_of(upstream, depends_on='null::text') %}
{%- if not is_incremental() -%}
    {{ note_all_changed() }}
{%- else -%}
    create temporary table changes_of_{{ this.identifier }} on commit drop as
    with

    taken as (
        select
            coalesce(max(offsets.change_id), -1) as change_id,
            max(offsets.depends_on) as depends_on
        from ops.gold_offsets as offsets
        where offsets.model = '{{ this.identifier }}'
    ),

    news as (
        select changes.kept_through
        from ops.gold_changes as changes
        cross join taken
        where
            changes.model in ({% for relation in upstream %}'{{ relation.identifier }}'{{ ', ' if not loop.last }}{% endfor %})
            and changes.change_id > taken.change_id
        union all
        select null
        from taken
        where
            taken.change_id < 0
            or taken.depends_on is distinct from ({{ depends_on }})
    )

    select
        null::text as ticker,
        nullif(min(coalesce(kept_through, '-infinity')), '-infinity') as kept_through
    from news
    having count(*) > 0
{%- endif -%}
{% endmacro %}


{#- The rows of a parent in the sessions that are built anew. -#}
{% macro changed_sessions(relation) -%}
    {%- if is_incremental() -%}
    (
        select parents.*
        from {{ changes() }} as changes
        cross join (select distinct ticker from {{ ref('int_last_sessions') }}) as last_sessions
        cross join lateral (
            select rows_of_parent.*
            from {{ relation }} as rows_of_parent
            where
                rows_of_parent.ticker = last_sessions.ticker
                and rows_of_parent.session_date > coalesce(changes.kept_through, '-infinity')
            offset 0
        ) as parents
    )
    {%- else -%}
    {{ relation }}
    {%- endif -%}
{%- endmacro %}


{#- Incremental strategy: the sessions after kept_through are replaced. -#}
{% macro get_incremental_replace_sessions_sql(arg_dict) %}
    {%- set columns = get_quoted_csv(arg_dict["dest_columns"] | map(attribute="name")) -%}

    delete from {{ arg_dict["target_relation"] }} as rows_stored
    using {{ changes() }} as changes
    where rows_stored.session_date > coalesce(changes.kept_through, '-infinity');

    insert into {{ arg_dict["target_relation"] }} ({{ columns }})
    select {{ columns }}
    from {{ arg_dict["temp_relation"] }}

{% endmacro %}
