"""What the pipeline may do in the bucket, as the policy that every S3 server understands."""

import json
from collections.abc import Mapping, Sequence
from typing import Any

ARN = "arn:aws:s3:::"


def bucket_policy(bucket: str, curated_bucket: str) -> Mapping[str, Any]:
    """Return the least that the pipeline needs: no bucket is made, no reply is ever removed.

    What is taken up from the inbox is moved away; exports of tickers that are gone and old reports
    are removed.
    """
    both = [bucket, curated_bucket]
    return {
        "Version": "2012-10-17",
        "Statement": [
            _allow(["s3:ListBucket"], both),
            _allow(["s3:GetObject", "s3:PutObject"], [f"{name}/*" for name in both]),
            _allow(
                ["s3:DeleteObject"],
                [f"{bucket}/inbox/*", f"{curated_bucket}/gold/*", f"{curated_bucket}/reports/*"],
            ),
        ],
    }


def policy_text(bucket: str, curated_bucket: str) -> str:
    """Return the policy as the file that a server is given."""
    return json.dumps(bucket_policy(bucket, curated_bucket), indent=2) + "\n"


def _allow(actions: Sequence[str], resources: Sequence[str]) -> Mapping[str, Any]:
    return {
        "Effect": "Allow",
        "Action": list(actions),
        "Resource": [f"{ARN}{resource}" for resource in resources],
    }
