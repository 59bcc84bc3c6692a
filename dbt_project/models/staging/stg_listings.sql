select
    ticker,
    delisted_on,
    company_name,
    exchange,
    asset_type,
    listed_on,
    status,
    bronze_key
from {{ source('silver', 'listings') }}
