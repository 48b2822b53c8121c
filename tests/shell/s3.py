"""An S3 server (moto's) in a process of its own, and depots in it."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import boto3
import httpx

from router.depot.s3 import S3Depot
from tests.system.running import free_port

BUCKET = "kept"
WITHIN = 60.0  # seconds until it answers
CREDENTIALS = {"AWS_ACCESS_KEY_ID": "testing", "AWS_SECRET_ACCESS_KEY": "testing", "AWS_DEFAULT_REGION": "us-east-1"}


@dataclass(frozen=True)
class Server:
    """`names` and `parts` are what the bucket holds: objects, and uploads in parts that are under way."""

    endpoint: str
    process: subprocess.Popen[bytes]

    def depot(self, spool: Path, prefix: str = "") -> S3Depot:
        spool.mkdir(parents=True, exist_ok=True)
        return S3Depot(BUCKET, prefix, self.endpoint, spool)

    def names(self) -> list[str]:
        found = self._client().list_objects_v2(Bucket=BUCKET).get("Contents", ())
        return sorted(str(each["Key"]) for each in found)

    def parts(self) -> list[str]:
        found = self._client().list_multipart_uploads(Bucket=BUCKET).get("Uploads", ())
        return [str(each["Key"]) for each in found]

    def begin(self, key: str) -> str:
        """An upload in parts of which none comes; its id."""
        return str(self._client().create_multipart_upload(Bucket=BUCKET, Key=key)["UploadId"])

    def clear(self) -> None:
        for key in self.names():
            self._client().delete_object(Bucket=BUCKET, Key=key)
        for each in self._client().list_multipart_uploads(Bucket=BUCKET).get("Uploads", ()):
            self._client().abort_multipart_upload(Bucket=BUCKET, Key=each["Key"], UploadId=each["UploadId"])

    def overwrite(self, key: str, body: bytes) -> None:
        self._client().put_object(Bucket=BUCKET, Key=key, Body=body)

    def _client(self) -> Any:
        return boto3.client("s3", endpoint_url=self.endpoint)


@contextmanager
def s3_server() -> Iterator[Server]:
    """With an empty bucket, and credentials for it in the environment."""
    port = free_port()
    before = {name: os.environ.get(name) for name in CREDENTIALS}
    os.environ.update(CREDENTIALS)
    command = [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        server = Server(f"http://127.0.0.1:{port}", process)
        give_up = time.monotonic() + WITHIN
        while not answers(server.endpoint):
            assert time.monotonic() < give_up, "the S3 server does not answer"
            assert process.poll() is None, "the S3 server ended"
            time.sleep(0.05)
        boto3.client("s3", endpoint_url=server.endpoint).create_bucket(Bucket=BUCKET)
        yield server
    finally:
        process.kill()
        process.wait()
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


def answers(endpoint: str) -> bool:
    try:
        return httpx.get(f"{endpoint}/moto-api/data.json", trust_env=False).status_code == 200
    except httpx.HTTPError:
        return False
