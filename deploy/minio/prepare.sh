#!/bin/sh
# Makes the buckets in MinIO and the user that the pipeline comes in as. May run any number of times.
set -eu

# The least that the pipeline needs, as in policy.json; the names of the buckets are settings.
policy() {
    cat <<END
{
  "Version": "2012-10-17",
  "Statement": [
    {
      "Effect": "Allow",
      "Action": ["s3:ListBucket"],
      "Resource": ["arn:aws:s3:::$STOCKS_BUCKET", "arn:aws:s3:::$STOCKS_CURATED_BUCKET"]
    },
    {
      "Effect": "Allow",
      "Action": ["s3:GetObject", "s3:PutObject"],
      "Resource": ["arn:aws:s3:::$STOCKS_BUCKET/*", "arn:aws:s3:::$STOCKS_CURATED_BUCKET/*"]
    },
    {
      "Effect": "Allow",
      "Action": ["s3:DeleteObject"],
      "Resource": [
        "arn:aws:s3:::$STOCKS_BUCKET/inbox/*",
        "arn:aws:s3:::$STOCKS_CURATED_BUCKET/gold/*",
        "arn:aws:s3:::$STOCKS_CURATED_BUCKET/reports/*"
      ]
    }
  ]
}
END
}

case "${1:-}" in
buckets)
    mc mb --ignore-existing "minio/$STOCKS_BUCKET" "minio/$STOCKS_CURATED_BUCKET"
    ;;
user)
    policy >/tmp/policy.json
    mc admin policy create minio pipeline-least /tmp/policy.json
    # Read from standard input, so that the secret is on no command line.
    printf '%s\n%s\n' "$AWS_ACCESS_KEY_ID" "$AWS_SECRET_ACCESS_KEY" | mc admin user add minio
    # A policy that is attached already is refused: that is asked first.
    has_policy() {
        case "$(mc admin user info --json minio "$AWS_ACCESS_KEY_ID")" in
        *'"policyName":"pipeline-least"'*) ;;
        *) return 1 ;;
        esac
    }
    has_policy || mc admin policy attach minio pipeline-least --user "$AWS_ACCESS_KEY_ID"
    has_policy || { echo "the policy is not attached to $AWS_ACCESS_KEY_ID" >&2; exit 1; }
    ;;
policy) policy ;;
*) echo "expected buckets, user or policy" >&2; exit 2 ;;
esac
