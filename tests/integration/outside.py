"""An S3 client of somebody else's: another program, or a person with the store's keys."""

from typing import TYPE_CHECKING

import boto3

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client


def s3_client(endpoint_url: str | None, key_id: str | None, secret: str | None) -> "S3Client":
    """Return a plain client; who asks for it closes it."""
    return boto3.client(
        "s3",
        endpoint_url=endpoint_url,
        aws_access_key_id=key_id,
        aws_secret_access_key=secret,
        region_name="us-east-1",
    )
