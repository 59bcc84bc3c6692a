select
    ticker,
    ex_date,
    action_type,
    dividend_amount,
    split_ratio,
    declaration_date,
    record_date,
    payment_date,
    row_version,
    bronze_key
from {{ source('silver', 'corporate_actions') }}
