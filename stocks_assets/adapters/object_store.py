"""Objects in a bucket, through plain S3: nothing here is particular to one vendor's store."""

import contextlib
import gzip
import logging
import os
import sys
import uuid
import zlib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import IO, TYPE_CHECKING, Self
from urllib.parse import quote

import boto3
import botocore.session
import obstore
from boto3.s3.transfer import TransferConfig
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError
from botocore.utils import parse_timestamp
from obstore.auth.boto3 import Boto3CredentialProvider
from obstore.exceptions import AlreadyExistsError, BaseError
from obstore.store import S3Store

from stocks_assets.domain.arrivals import Listed
from stocks_assets.domain.datasets import LARGEST_REPLY
from stocks_assets.errors import StackError

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

_LOG = logging.getLogger(__name__)
_CONFIG = Config(
    signature_version="s3v4",
    s3={"addressing_style": "path"},
    connect_timeout=5,
    read_timeout=60,
    # Some seconds in all: a store that restarts is waited for, one that is not there is said soon.
    retries={"mode": "standard", "max_attempts": 5},
    max_pool_connections=32,
)
_IDENTITY_KEY = "stocks-bucket-identity.gz"
_ALREADY_THERE = ("PreconditionFailed", "ConditionalRequestConflict", "412")
_NOT_THERE = ("404", "NoSuchBucket", "NotFound")
_DENIED = ("403", "AccessDenied", "Forbidden")
_GZIP = b"\x1f\x8b"
_CHANGED = ("PreconditionFailed", "412", "NoSuchKey", "NotFound", "404")
_PAST_ALL = chr(sys.maxunicode)
# What the quick client raises: whatever it is, the other one is asked, and tries again.
_NOT_QUICK = (BaseError, OSError, ValueError, TypeError)
# So often in a row the quick client fails where boto3 does not, until it is let be.
_FAILURES = 5
# botocore takes new credentials from fifteen minutes before the old ones end.
_CREDENTIALS_FOR = timedelta(minutes=10)
# In one request up to the size from which S3 wants parts.
_COPY = TransferConfig(multipart_threshold=5 * 1024**3, use_threads=False)


@dataclass(frozen=True, slots=True)
class S3Location:
    """An S3 server and what it takes to use it; no keys means the SDK's own chain finds them."""

    endpoint_url: str
    access_key_id: str | None
    secret_access_key: str | None
    session_token: str | None = None
    region: str = "us-east-1"

    def __repr__(self) -> str:
        return f"S3Location({self.endpoint_url!r})"


@dataclass(frozen=True, slots=True)
class Entry:
    """An object as a listing has it: another content has another `etag`; `size` in bytes."""

    key: str
    etag: str
    size: int
    modified_at: datetime


class ObjectStore:
    """One bucket of an S3 server.

    Objects are read and written by a client that takes a sixth of the processor's time of boto3
    (obstore), one try each. What it does not come to, be it that an object is not there, is asked
    of boto3, which tries again and says what is wrong. Where that has answers which the quick one
    has not, as through a proxy that one of them does not know, the quick one is let be. So it is in
    a process that was forked, in which it would wait for ever.
    """

    def __init__(self, location: S3Location, bucket: str) -> None:
        self._location = location
        self.bucket = bucket
        core = botocore.session.get_session()
        core.get_component("response_parser_factory").set_parser_defaults(timestamp_parser=_moment)
        session = boto3.Session(
            botocore_session=core,
            aws_access_key_id=location.access_key_id,
            aws_secret_access_key=location.secret_access_key,
            aws_session_token=location.session_token,
            region_name=location.region,
        )
        self._client: S3Client = session.client(
            "s3", endpoint_url=location.endpoint_url, config=_CONFIG
        )
        self._made_in, self._failures = os.getpid(), 0
        self._quick = _quick_store(session, location, bucket)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._client.close()

    def ensure_bucket(self) -> None:
        """Make the bucket if it is not there.

        Raises:
            StackError: the server cannot be reached, or does not allow it.
        """
        try:
            if self._is_there():
                return
            with contextlib.suppress(
                self._client.exceptions.BucketAlreadyOwnedByYou,
                self._client.exceptions.BucketAlreadyExists,
            ):
                self._client.create_bucket(Bucket=self.bucket)
        except ClientError as error:
            code = error.response["Error"]["Code"]
            if error.operation_name == "CreateBucket":
                raise StackError(
                    f"there is no bucket {self.bucket!r} on the S3 server at "
                    f"{self._location.endpoint_url}, and the user may not make it ({code}); as an "
                    f"administrator run: aws s3 mb s3://{self.bucket}"
                ) from error
            raise StackError(
                f"the S3 server at {self._location.endpoint_url} refuses bucket {self.bucket!r} "
                f"({code}); check AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY and the bucket's name"
            ) from error
        except BotoCoreError as error:
            raise StackError(
                f"no S3 server answers at {self._location.endpoint_url} ({type(error).__name__}); "
                "check STOCKS_S3_ENDPOINT_URL"
            ) from error

    def _is_there(self) -> bool:
        """Tell whether the bucket is there, even to who may only list it."""
        try:
            self._client.head_bucket(Bucket=self.bucket)
        except ClientError as error:
            code = error.response["Error"]["Code"]
            if code in _NOT_THERE:
                return False
            if code not in _DENIED:
                raise
            self._client.list_objects_v2(Bucket=self.bucket, Prefix="bronze/", MaxKeys=1)
        return True

    def identity(self) -> str:
        """Return what tells this bucket from any other, wherever it is served from.

        It is an object in the bucket, made by whoever asks first.
        """
        try:
            return self.get(_IDENTITY_KEY).decode()
        except self._client.exceptions.NoSuchKey:
            self.put_new(_IDENTITY_KEY, uuid.uuid4().hex.encode(), {})
        return self.get(_IDENTITY_KEY).decode()

    def put_new(self, key: str, body: bytes, metadata: Mapping[str, str]) -> bool:
        """Store `body`, compressed, under `key` unless something is there already.

        Returns whether it was stored; what is there is never overwritten.
        """
        packed = gzip.compress(body, compresslevel=6, mtime=0)
        content_type = "text/csv" if ".csv." in key else "application/json"
        if (quick := self._usable()) is not None:
            try:
                obstore.put(
                    quick,
                    key,
                    packed,
                    attributes={
                        "Content-Type": content_type,
                        "Content-Encoding": "gzip",
                        **metadata,
                    },
                    mode="create",
                    use_multipart=False,
                )
            except AlreadyExistsError:
                # Other conflicts are called so too.
                return self._put_new(key, packed, content_type, metadata)
            except _NOT_QUICK as error:
                is_stored = self._put_new(key, packed, content_type, metadata)
                self._let_be(error)
                return is_stored
            self._failures = 0
            return True
        return self._put_new(key, packed, content_type, metadata)

    def _put_new(
        self, key: str, packed: bytes, content_type: str, metadata: Mapping[str, str]
    ) -> bool:
        try:
            self._client.put_object(
                Bucket=self.bucket,
                Key=key,
                Body=packed,
                ContentType=content_type,
                ContentEncoding="gzip",
                Metadata=dict(metadata),
                IfNoneMatch="*",
            )
        except ClientError as error:
            if error.response["Error"]["Code"] in _ALREADY_THERE:
                return False
            raise
        return True

    def has(self, key: str) -> bool:
        """Tell whether there is an object under `key`."""
        failure: Exception | None = None
        if (quick := self._usable()) is not None:
            try:
                obstore.head(quick, key)
            except _NOT_QUICK as error:
                failure = error
            else:
                return True
        try:
            self._client.head_object(Bucket=self.bucket, Key=key)
        except ClientError as error:
            if error.response["Error"]["Code"] in ("NoSuchKey", *_NOT_THERE):
                return False
            raise
        if failure is not None:
            self._let_be(failure)
        return True

    def get(self, key: str, max_bytes: int = LARGEST_REPLY) -> bytes:
        """Return what `put_new`, or anybody else, stored under `key`.

        Raises:
            BadGzipFile: it is not compressed, or unpacks to more than `max_bytes`.
        """
        quick = self._usable()
        if quick is None:
            return unpacked(self._get(key, max_bytes), max_bytes)
        try:
            found = obstore.get(quick, key)
            packed = found.bytes().to_bytes() if found.meta["size"] <= max_bytes else None
            self._failures = 0
        except _NOT_QUICK as error:
            packed = self._get(key, max_bytes)
            self._let_be(error)
        if packed is None:
            raise _too_large(max_bytes)
        return unpacked(packed, max_bytes)

    def _get(self, key: str, max_bytes: int) -> bytes:
        found = self._client.get_object(Bucket=self.bucket, Key=key)
        with found["Body"] as body:
            if found["ContentLength"] > max_bytes:
                raise _too_large(max_bytes)
            return body.read()

    def _usable(self) -> S3Store | None:
        """Return the quick client; another thread may let it be meanwhile."""
        return self._quick if os.getpid() == self._made_in else None

    def _let_be(self, error: Exception) -> None:
        """Count that boto3 had an answer where the quick client failed; at last, use it no more."""
        self._failures += 1
        if self._failures >= _FAILURES and self._quick is not None:
            self._quick = None
            _LOG.warning("objects go through boto3 alone from now on (%s)", type(error).__name__)

    def put_page(self, keys: Iterable[str], body: bytes, content_type: str) -> None:
        """Store `body`, compressed, under `keys` for browsers, in place of what is there."""
        packed = gzip.compress(body, compresslevel=6, mtime=0)
        for key in keys:
            self._client.put_object(
                Bucket=self.bucket,
                Key=key,
                Body=packed,
                ContentType=content_type,
                ContentEncoding="gzip",
            )

    def get_page(self, key: str) -> bytes | None:
        """Return what `put_page` stored under `key`; None if there is nothing."""
        try:
            return self.get(key)
        except ClientError as error:
            if error.response["Error"]["Code"] in ("NoSuchKey", *_NOT_THERE):
                return None
            raise

    def url(self, key: str) -> str:
        """Return where `key` is; to read it takes the keys of the store."""
        return f"{self._location.endpoint_url.rstrip('/')}/{self.bucket}/{quote(key)}"

    def keys_after(self, prefix: str, start_after: str) -> Iterator[str]:
        """Yield the keys with `prefix` that sort after `start_after`, in order."""
        pages = self._client.get_paginator("list_objects_v2").paginate(
            Bucket=self.bucket, Prefix=prefix, StartAfter=start_after
        )
        for page in pages:
            for entry in page.get("Contents", ()):
                yield entry["Key"]

    def page(self, prefix: str, after: str) -> tuple[list[Listed], bool]:
        """Return the next objects with `prefix` after a key, and whether there are more.

        One call: a thousand objects at most.
        """
        found = self._client.list_objects_v2(Bucket=self.bucket, Prefix=prefix, StartAfter=after)
        listed = [Listed(one["Key"], one["ETag"]) for one in found.get("Contents", ())]
        return listed, found["IsTruncated"] and bool(listed)

    def below(self, prefix: str, after: str) -> tuple[list[str], list[Listed], str | None]:
        """Return the next folders and objects right below `prefix` after a key.

        The third is after which key to go on, None at the end. One call: a thousand at most. Some
        may come twice where a store's order is not that of the keys, but none is left out.
        """
        found = self._client.list_objects_v2(
            Bucket=self.bucket, Prefix=prefix, Delimiter="/", StartAfter=after
        )
        folders = [one["Prefix"] for one in found.get("CommonPrefixes", ())]
        listed = [Listed(one["Key"], one["ETag"]) for one in found.get("Contents", ())]
        last = max([*folders, *(one.key for one in listed)], default=None)
        if last is None or not found["IsTruncated"]:
            return folders, listed, None
        # Past all that is in a folder, or it is listed again.
        return folders, listed, last + _PAST_ALL if last.endswith("/") else last

    # Objects that others put here, as they are

    def entries(self, prefix: str) -> Iterator[Entry]:
        """Yield the objects whose keys have `prefix`, in the order of their keys."""
        pages = self._client.get_paginator("list_objects_v2").paginate(
            Bucket=self.bucket, Prefix=prefix
        )
        for page in pages:
            for entry in page.get("Contents", ()):
                yield Entry(entry["Key"], entry["ETag"], entry["Size"], entry["LastModified"])

    def read_raw(self, entry: Entry) -> bytes | None:
        """Return the content of `entry`; None if it has been replaced or removed since."""
        try:
            found = self._client.get_object(Bucket=self.bucket, Key=entry.key, IfMatch=entry.etag)
        except ClientError as error:
            if _has_changed(error):
                return None
            raise
        return found["Body"].read()

    def put_text(self, key: str, text: str) -> None:
        """Store `text` under `key` for people to read, in place of what is there."""
        self._client.put_object(
            Bucket=self.bucket,
            Key=key,
            Body=text.encode(),
            ContentType="text/plain; charset=utf-8",
        )

    def put_file(self, key: str, file: IO[bytes], metadata: Mapping[str, str]) -> str:
        """Store what `file` has from where it stands, in place of what is there; return its etag.

        A reader finds the old content or the new one, never part of one.
        """
        stored = self._client.put_object(
            Bucket=self.bucket, Key=key, Body=file, Metadata=dict(metadata)
        )
        return stored["ETag"]

    def copy(self, entry: Entry, to: str) -> bool:
        """Copy `entry` to the key `to`; tell whether it was still there with its content."""
        try:
            self._client.copy(
                {"Bucket": self.bucket, "Key": entry.key},
                self.bucket,
                to,
                ExtraArgs={"CopySourceIfMatch": entry.etag},
                Config=_COPY,
            )
        except ClientError as error:
            if _has_changed(error):
                return False
            raise
        return True

    def remove(self, entry: Entry) -> bool:
        """Remove `entry`; tell whether it was still there with its content, or else leave it."""
        try:
            # Not every store heeds the condition of a removal.
            self._client.head_object(Bucket=self.bucket, Key=entry.key, IfMatch=entry.etag)
            self._client.delete_object(Bucket=self.bucket, Key=entry.key, IfMatch=entry.etag)
        except ClientError as error:
            if _has_changed(error):
                return False
            raise
        return True


def _moment(written: str) -> datetime:
    """Read a time from a reply; botocore's way is most of what a listing takes of a processor."""
    try:
        return datetime.fromisoformat(written)
    except ValueError:
        return parse_timestamp(written)


def _quick_store(session: boto3.Session, location: S3Location, bucket: str) -> S3Store | None:
    """Return the quick client; None where there are no credentials, or it cannot be made."""
    try:
        return S3Store(
            bucket,
            endpoint=location.endpoint_url,
            region=location.region,
            virtual_hosted_style_request=False,
            credential_provider=Boto3CredentialProvider(session, ttl=_CREDENTIALS_FOR),
            client_options={
                "allow_http": location.endpoint_url.startswith("http:"),
                "connect_timeout": "5s",
                "timeout": "60s",
            },
            retry_config={"max_retries": 0},
        )
    except _NOT_QUICK as error:
        # It reads AWS_* that boto3 passes over. What is really missing, boto3 says.
        _LOG.info("objects go through boto3 alone (%s)", type(error).__name__)
        return None


def unpacked(packed: bytes, max_bytes: int) -> bytes:
    """Return what is in gzip's members, each in one step.

    The standard library's file takes eight kilobytes a step, and in threads each waits its turn.

    Raises:
        BadGzipFile: it is not compressed, damaged, or unpacks to more than `max_bytes`.
        EOFError: it is cut off.
    """
    content = b""
    while packed:
        if not packed.startswith(_GZIP):
            raise gzip.BadGzipFile(f"Not a gzipped file ({packed[:2]!r})")
        member = zlib.decompressobj(wbits=16 + zlib.MAX_WBITS)
        try:
            content += member.decompress(packed, max_bytes + 1 - len(content))
        except zlib.error as error:
            raise gzip.BadGzipFile(str(error)) from error
        if len(content) > max_bytes:
            raise _too_large(max_bytes)
        if not member.eof:
            raise EOFError("it ends before its end-of-stream marker")
        packed = member.unused_data.lstrip(b"\0")
    return content


def _too_large(max_bytes: int) -> gzip.BadGzipFile:
    return gzip.BadGzipFile(f"it has more than {max_bytes:,} bytes")


def _has_changed(error: ClientError) -> bool:
    return error.response["Error"]["Code"] in _CHANGED
