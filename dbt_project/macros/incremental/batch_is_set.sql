{#-
    Whether this run is for a batch of tickers: the set in ops.batches under the session setting
    stocks.batch_id, which PGOPTIONS="-c stocks.batch_id=<id>" gives to every connection. Without
    one a run is for all tickers; an id that ops.batches does not know is a batch of none.
-#}
{% macro batch_is_set() %}
    {%- if not execute -%}
        {{ return(false) }}
    {%- endif -%}
    {%- set setting = run_query("select coalesce(current_setting('stocks.batch_id', true), '') <> ''") -%}
    {{ return(setting.rows[0][0]) }}
{% endmacro %}
