{#-
    Models that are replaced as a whole, and only when something of them changed: small tables that others
    keep rows by. The views on the table stay.
-#}

{#-
    How the rows stored differ from those of the query `wanted`, in the columns it has: which tickers do,
    or, where `day` names the column of a calendar, from which day on.
-#}
{% macro take_differences(wanted, columns, day=none) %}
{%- if not is_incremental() -%}
    {{ note_all_changed() }}
{%- else -%}
    {%- set columns = columns | join(', ') -%}
    create temporary table changes_of_{{ this.identifier }} on commit drop as
    with

    wanted as (
        {{ wanted }}
    ),

    stored as (
        select {{ columns }} from {{ this }}
    ),

    differences as (
        (select * from wanted except all select * from stored)
        union all
        (select * from stored except all select * from wanted)
    )

    {% if day -%}
    select
        null::text as ticker,
        min({{ day }}) - 1 as kept_through
    from differences
    having count(*) > 0
    {%- else -%}
    select distinct
        ticker,
        null::date as kept_through
    from differences
    {%- endif %}
{%- endif -%}
{% endmacro %}


{#- A condition for the rows of such a model: none is built where nothing changed. -#}
{% macro something_changed() -%}
    {{ 'exists (select from ' ~ changes() ~ ')' if is_incremental() else 'true' }}
{%- endmacro %}


{#- Incremental strategy: all rows are replaced, if anything changed. -#}
{% macro get_incremental_replace_all_sql(arg_dict) %}
    {%- set columns = get_quoted_csv(arg_dict["dest_columns"] | map(attribute="name")) -%}

    delete from {{ arg_dict["target_relation"] }}
    where exists (select from {{ changes() }});

    insert into {{ arg_dict["target_relation"] }} ({{ columns }})
    select {{ columns }}
    from {{ arg_dict["temp_relation"] }}

{% endmacro %}
