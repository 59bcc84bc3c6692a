{#-
    The condition that a row's ticker belongs to the batch of this run.

    The batch is the set of tickers in ops.batches under the session setting stocks.batch_id, which
    PGOPTIONS="-c stocks.batch_id=<id>" gives to every connection. Without a batch id all tickers
    belong; an id that ops.batches does not know is a batch of no tickers.

    Whether an id is set is asked here and not in the condition: an `or` would keep the planner from
    reading just the tickers' part of the index.
-#}
{% macro in_batch(ticker) -%}
    {%- if batch_is_set() -%}
        {{ ticker }} in (
            select batches.ticker
            from ops.batches
            where batches.batch_id = current_setting('stocks.batch_id', true)
        )
    {%- else -%}
        true
    {%- endif -%}
{%- endmacro %}


{% macro batch_is_set() %}
    {%- if not execute -%}
        {{ return(false) }}
    {%- endif -%}
    {%- set setting = run_query("select coalesce(current_setting('stocks.batch_id', true), '') <> ''") -%}
    {{ return(setting.rows[0][0]) }}
{% endmacro %}
