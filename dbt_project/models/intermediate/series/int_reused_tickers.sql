{{ config(incremental_strategy='replace_all', indexes=[{'columns': ['ticker', 'valid_from'], 'unique': true}]) }}

select
    ticker,
    security_key,
    valid_from,
    valid_to
from {{ ref('int_securities') }}
where valid_from > '1900-01-01'
