"""A depot in S3, or in what speaks its protocol: `<prefix>/<aa>/<digest>`; uploads under way at `<prefix>/incoming/`.

Credentials and region come from where boto3 looks for them (environment, profile, instance role), and go nowhere else.
"""

from __future__ import annotations

import asyncio
import errno
import hashlib
import logging
import re
import tempfile
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

import boto3
from boto3.exceptions import Boto3Error
from boto3.s3.transfer import TransferConfig
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError

from router.depot.depot import Object, Spooled
from router.depot.folder import DIGEST, missing
from torpor.errors import BadRequest, InternalError, InvalidConfig

T = TypeVar("T")

PART = 16 << 20  # bytes of one part; larger files go in parts
CHUNK = 1 << 20  # bytes of one read
LINK_WITHIN = 6 * 3600  # seconds that a link is good for
CONNECT_WITHIN = 10.0
ANSWER_WITHIN = 60.0  # seconds without a byte
TRIES = 4  # of one request, by boto3
INCOMING = "incoming/"  # below the prefix: uploads past the router that are under way
# Nothing else of a bucket is looked at: it may be others' too.
OURS = re.compile(r"incoming/(?:bento|model)-[0-9a-f]{32}|([0-9a-f]{2})/\1[0-9a-f]{62}")
ABSENT = ("404", "NoSuchKey", "NotFound", "NoSuchUpload")
WRONG_PARTS = ("InvalidPart", "InvalidPartOrder", "EntityTooSmall", "NoSuchUpload", "MalformedXML")


class S3Depot:
    """`spool`: a folder for files on their way. Requests run in threads; the client is safe there."""

    def __init__(self, bucket: str, prefix: str, endpoint: str | None, spool: Path) -> None:
        self._bucket = bucket
        self._prefix = f"{prefix.strip('/')}/" if prefix.strip("/") else ""
        self._spool = spool
        for name in ("boto3", "botocore", "s3transfer"):  # at debug they log what they sign, session tokens too
            logging.getLogger(name).setLevel(logging.WARNING)
        # Path style where the endpoint is named: a server of one's own has no name for each bucket.
        style = {"addressing_style": "path"} if endpoint else {}
        config = Config(
            s3=style,
            signature_version="s3v4",
            connect_timeout=CONNECT_WITHIN,
            read_timeout=ANSWER_WITHIN,
            retries={"mode": "standard", "total_max_attempts": TRIES},
        )
        try:
            self._client: Any = boto3.client("s3", endpoint_url=endpoint, config=config)
        except (BotoCoreError, ValueError) as error:
            raise InvalidConfig(
                f"the store in S3 cannot be used: {error}\nsee to AWS_REGION and store_endpoint"
            ) from None
        self._transfer = TransferConfig(
            multipart_threshold=PART, multipart_chunksize=PART, max_concurrency=2, max_io_queue=8
        )

    @property
    def direct(self) -> S3Depot:
        return self

    async def take(self, spooled: Spooled) -> None:
        await self._ask(lambda: self._take(spooled))

    async def open(self, digest: str) -> tuple[int, AsyncIterator[bytes]]:
        return await self._stream(self._key(digest), missing(digest))

    @contextmanager
    def fetch(self, digest: str) -> Iterator[Path]:
        with tempfile.NamedTemporaryFile(dir=self._spool) as file:
            hashed = hashlib.sha256()
            with _translated(missing(digest)):
                body = self._client.get_object(Bucket=self._bucket, Key=self._key(digest))["Body"]
                while chunk := body.read(CHUNK):
                    hashed.update(chunk)
                    file.write(chunk)
            file.flush()
            if hashed.hexdigest() != digest:
                raise InternalError(f"what the store has under {digest} is something else\npush it again with --force")
            yield Path(file.name)

    async def delete(self, digest: str) -> None:
        await self._ask(lambda: self._client.delete_object(Bucket=self._bucket, Key=self._key(digest)))

    async def objects(self) -> list[Object]:
        return await self._ask(lambda: list(self._listed()))

    async def get_link(self, digest: str, name: str) -> str:
        shown = f'attachment; filename="{name}"'
        return await self._link("get_object", Key=self._key(digest), ResponseContentDisposition=shown)

    async def put_link(self, key: str) -> str:
        return await self._link("put_object", Key=self._incoming(key))

    async def begin(self, key: str) -> str:
        made = await self._ask(lambda: self._client.create_multipart_upload(**self._at(key)))
        return str(made["UploadId"])

    async def part_link(self, key: str, upload: str, number: int) -> str:
        return await self._link("upload_part", Key=self._incoming(key), UploadId=upload, PartNumber=number)

    async def complete(self, key: str, upload: str, parts: Sequence[tuple[int, str]]) -> None:
        listed = {"Parts": [{"PartNumber": number, "ETag": etag} for number, etag in sorted(parts)]}
        request = self._client.complete_multipart_upload
        try:
            await asyncio.to_thread(lambda: request(**self._at(key), UploadId=upload, MultipartUpload=listed))
        except ClientError as error:
            if _code(error) in WRONG_PARTS:
                raise BadRequest(f"the parts are not those that came: {error}\nupload it again") from None
            raise _failed(error) from error
        except BotoCoreError as error:
            raise _failed(error) from error

    async def abort(self, key: str, upload: str | None) -> None:
        if upload is not None:
            await self.forget(f"{INCOMING}{key}", upload)
        await self.forget(f"{INCOMING}{key}", "")

    async def forget(self, place: str, upload: str) -> None:
        def run() -> None:
            at = {"Bucket": self._bucket, "Key": self._prefix + place}
            if not upload:
                self._client.delete_object(**at)
                return
            try:
                self._client.abort_multipart_upload(**at, UploadId=upload)
            except ClientError as error:
                if _code(error) not in ABSENT:
                    raise

        await self._ask(run)

    async def read(self, key: str) -> AsyncIterator[bytes]:
        absent = BadRequest("nothing has come by the link that was given\nupload it before it is finished")
        _, stream = await self._stream(self._incoming(key), absent)
        return stream

    async def settle(self, key: str, digest: str) -> None:
        def run() -> None:
            if not self._has(digest):
                source = {"Bucket": self._bucket, "Key": self._incoming(key)}
                self._client.copy(source, self._bucket, self._key(digest), Config=self._transfer)  # in parts, if large
            self._client.delete_object(**self._at(key))

        await self._ask(run)

    async def left(self, before: float) -> list[tuple[str, str, int]]:
        return await self._ask(lambda: list(self._left(before)))

    def _left(self, before: float) -> Iterator[tuple[str, str, int]]:
        for each in self._pages("list_objects_v2", "Contents", self._incoming("")):
            if each["LastModified"].timestamp() < before:
                yield self._place(each), "", int(each["Size"])
        for each in self._pages("list_multipart_uploads", "Uploads", self._prefix):
            if each["Initiated"].timestamp() < before:
                yield self._place(each), str(each["UploadId"]), 0

    def _pages(self, operation: str, key: str, prefix: str) -> Iterator[Any]:
        """What a listing has of ours."""
        for page in self._client.get_paginator(operation).paginate(Bucket=self._bucket, Prefix=prefix):
            yield from (each for each in page.get(key, ()) if OURS.fullmatch(self._place(each)))

    def _place(self, found: Any) -> str:
        return str(found["Key"]).removeprefix(self._prefix)

    def _take(self, spooled: Spooled) -> None:
        """In parts where it is large; boto3 aborts those of an upload that fails."""
        if not self._has(spooled.digest):
            self._client.upload_file(str(spooled.path), self._bucket, self._key(spooled.digest), Config=self._transfer)

    def _has(self, digest: str) -> bool:
        try:
            self._client.head_object(Bucket=self._bucket, Key=self._key(digest))
        except ClientError as error:
            if _code(error) in ABSENT:
                return False
            raise
        return True

    def _listed(self) -> Iterator[Object]:
        for each in self._pages("list_objects_v2", "Contents", self._prefix):
            if not self._place(each).startswith(INCOMING):
                digest = self._place(each).partition("/")[2]
                yield Object(digest, int(each["Size"]), each["LastModified"].timestamp())

    async def _stream(self, key: str, absent: Exception) -> tuple[int, AsyncIterator[bytes]]:
        found = await self._ask(lambda: self._client.get_object(Bucket=self._bucket, Key=key), absent)
        return int(found["ContentLength"]), self._read(found["Body"])

    async def _read(self, body: Any) -> AsyncIterator[bytes]:
        try:
            while chunk := await self._ask(lambda: body.read(CHUNK)):
                yield chunk
        finally:
            body.close()

    async def _link(self, operation: str, **parameters: Any) -> str:
        """Signed here: no request is made."""
        asked = {"Bucket": self._bucket, **parameters}
        return str(
            await self._ask(lambda: self._client.generate_presigned_url(operation, Params=asked, ExpiresIn=LINK_WITHIN))
        )

    async def _ask(self, run: Callable[[], T], absent: Exception | None = None) -> T:
        def translated() -> T:
            with _translated(absent):
                return run()

        return await asyncio.to_thread(translated)

    def _at(self, key: str) -> dict[str, str]:
        return {"Bucket": self._bucket, "Key": self._incoming(key)}

    def _incoming(self, key: str) -> str:
        return f"{self._prefix}{INCOMING}{key}"

    def _key(self, digest: str) -> str:
        assert DIGEST.fullmatch(digest), digest
        return f"{self._prefix}{digest[:2]}/{digest}"


@contextmanager
def _translated(absent: Exception | None) -> Iterator[None]:
    """boto3's exceptions as ours; `absent` for what is not there."""
    try:
        yield
    except ClientError as error:
        if absent is not None and _code(error) in ABSENT:
            raise absent from None
        raise _failed(error) from error
    except (BotoCoreError, Boto3Error) as error:
        raise _failed(error) from error
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise
        raise _failed(error) from error


def _code(error: ClientError) -> str:
    return str(error.response.get("Error", {}).get("Code", ""))


def _failed(error: Exception) -> InternalError:
    return InternalError(f"the store in S3 failed: {error}\nsee to its bucket, store_endpoint and the credentials")
