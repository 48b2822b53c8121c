"""A service with every kind of argument and answer, and with every way to fail."""

from __future__ import annotations

import asyncio
import hashlib
import os
import stat
import time
from collections.abc import AsyncGenerator, Generator
from pathlib import Path
from typing import Any

import bentoml
import numpy as np
from numpy.typing import NDArray

FLAG = Path(os.environ.get("FLAG", "/nowhere"))  # a file that says how the next start goes


@bentoml.service
class Deployed:
    def __init__(self) -> None:
        match FLAG.read_text() if FLAG.exists() else "":
            case "broken":
                raise RuntimeError("told not to start")
            case "slow":
                time.sleep(600)
        print("started", flush=True)

    @bentoml.api
    def scaled(self, values: NDArray[np.float32], scale: float = 1.0) -> NDArray[np.float32]:
        return values * np.float32(scale)

    @bentoml.api
    def total(self, values: NDArray[np.int64], /) -> int:
        return int(values.sum())

    @bentoml.api
    def shout(self, text: str, /) -> str:
        return text.upper()

    @bentoml.api
    def backwards(self, data: bytes, /) -> bytes:
        return data[::-1]

    @bentoml.api
    def named(self, file: Path, name: str) -> str:
        return f"{name}: {file.read_text()}"

    @bentoml.api
    def join(self, parts: list[Path], context: bentoml.Context) -> Path:
        joined = Path(context.temp_dir) / "joined.json"
        joined.write_bytes(b"".join(part.read_bytes() for part in parts))
        return joined

    @bentoml.api
    def digest(self, file: Path, /) -> dict[str, Any]:
        return {"size": file.stat().st_size, "sha256": hashlib.sha256(file.read_bytes()).hexdigest()}

    @bentoml.api
    async def words(self, text: str, pause: float = 0) -> AsyncGenerator[str, None]:
        for word in text.split():
            yield word + " "
            await asyncio.sleep(pause)

    @bentoml.api
    def octets(self, upto: int) -> Generator[bytes, None, None]:
        for number in range(upto):
            yield bytes((number,))

    @bentoml.api
    def rest(self, first: int, **kwargs: Any) -> dict[str, Any]:
        return {"first": first, **kwargs}

    @bentoml.api
    def status(self, code: int, context: bentoml.Context) -> str:
        context.response.status_code = code
        return "short and stout"

    @bentoml.api
    async def wait(self, seconds: float) -> float:
        await asyncio.sleep(seconds)
        return seconds

    @bentoml.api
    async def die(self, words: int = 0) -> AsyncGenerator[str, None]:
        for _ in range(words):
            yield "word "
            await asyncio.sleep(0.1)  # each its own packet
        os._exit(3)

    @bentoml.api
    async def exit(self) -> None:
        os._exit(3)

    @bentoml.api
    async def garbage(self) -> None:
        """Writes what is no HTTP to every connection that this process has with the router."""
        for fd in map(int, os.listdir("/proc/self/fd")):
            try:
                if stat.S_ISSOCK(os.fstat(fd).st_mode):
                    os.write(fd, b"this is no answer\r\n\r\n")
            except OSError:
                continue  # a listening socket, or the folder's own descriptor
        await asyncio.sleep(600)
