{{ config(
    incremental_strategy='replace_all',
    indexes=[{'columns': ['ticker', 'valid_from'], 'unique': true}],
    pre_hook="{{ take_differences(
        \"select ticker, security_key, valid_from, valid_to from \" ~ ref('int_securities') ~ \" where valid_from > '1900-01-01'\",
        ['ticker', 'security_key', 'valid_from', 'valid_to'],
    ) }}",
    post_hook="{{ pass_changes_on() }}",
) }}

select
    ticker,
    security_key,
    valid_from,
    valid_to
from {{ ref('int_securities') }}
where
    valid_from > '1900-01-01'
    and {{ something_changed() }}
