{#-
    Incremental strategy: the rows of the batch's tickers are replaced as a whole.

    The delete goes by the batch and not by the new rows, so a ticker that has none left loses its
    old ones. Both statements share the model's transaction: readers see a ticker before or after.
-#}
{% macro get_incremental_replace_tickers_sql(arg_dict) %}
    {%- set columns = get_quoted_csv(arg_dict["dest_columns"] | map(attribute="name")) -%}

    delete from {{ arg_dict["target_relation"] }}
    where {{ in_batch('ticker') }};

    insert into {{ arg_dict["target_relation"] }} ({{ columns }})
    select {{ columns }}
    from {{ arg_dict["temp_relation"] }}

{% endmacro %}
