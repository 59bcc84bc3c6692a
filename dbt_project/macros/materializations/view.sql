{#-
    A view that is replaced in place. dbt's own drops the old view with all views on it, until these
    are made again: readers find nothing, and models that run at the same time lock one another out.
    Only a view whose columns became others has to go, and what was built on it with it.
-#}
{% materialization view, adapter='postgres' %}
    {%- set existing = load_cached_relation(this) -%}
    {%- set target = this.incorporate(type='view') -%}

    {{ run_hooks(pre_hooks, inside_transaction=False) }}
    {%- if existing is not none and not existing.is_view -%}
        {{ drop_relation_if_exists(existing) }}
    {%- endif -%}
    {{ run_hooks(pre_hooks, inside_transaction=True) }}

    {%- if config.get('contract').enforced -%}
        {{ get_assert_columns_equivalent(sql) }}
    {%- endif -%}
    {%- call statement('main') -%}
        do $view$
        begin
            create or replace view {{ target }} as (
                {{ sql }}
            );
        exception
            when invalid_table_definition then
                drop view {{ target }} cascade;
                create view {{ target }} as (
                    {{ sql }}
                );
        end
        $view$
    {%- endcall -%}

    {%- do apply_grants(target, config.get('grants'), should_revoke=should_revoke(existing, full_refresh_mode=True)) -%}
    {%- do persist_docs(target, model) -%}

    {{ run_hooks(post_hooks, inside_transaction=True) }}
    {{ adapter.commit() }}
    {{ run_hooks(post_hooks, inside_transaction=False) }}

    {{ return({'relations': [target]}) }}
{% endmaterialization %}
