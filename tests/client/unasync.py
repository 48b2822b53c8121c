"""Writes torpor/client/sync.py out of torpor/client/asynchronous.py: `python -m tests.client.unasync`."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

CLIENT = Path(__file__).parents[2] / "torpor" / "client"
ASYNC, SYNC = CLIENT / "asynchronous.py", CLIENT / "sync.py"

# In this order.
SUBSTITUTIONS = (
    ('"""The async client: drives the flows over httpx."""', '"""The sync client: drives the flows over httpx."""\n\n'
     "# Written by `python -m tests.client.unasync` out of asynchronous.py: change that one.\n"
     "# ruff: noqa: SIM117, UP028 - nested and spelt out where the async one has to"),
    ("import asyncio\n", ""),
    ("asyncio.to_thread(build, source)", "build(source)"),
    ("asyncio.sleep", "time.sleep"),
    ("asynccontextmanager", "contextmanager"),
    ("an async iterator", "an iterator"),
    ("    later,\n", ""),
    (", later)", ")"),
    ("async def", "def"),
    ("async with", "with"),
    ("async for", "for"),
    ("await ", ""),
    ("AsyncGenerator[str, None]", "Generator[str, None, None]"),
    ("AsyncGenerator[str | bytes, None]", "Generator[str | bytes, None, None]"),
    ("Async", ""),
    ("__aenter__", "__enter__"),
    ("__aexit__", "__exit__"),
    ("aclose", "close"),
    ("aiter_", "iter_"),
)  # fmt: skip


def generated() -> str:
    """The text of sync.py as it has to be."""
    text = ASYNC.read_text()
    for old, new in SUBSTITUTIONS:
        assert old in text, f"{old!r} is not in {ASYNC.name}: drop its substitution"
        text = text.replace(old, new)
    for arguments in (("check", "--select", "I", "--fix", "--quiet"), ("format", "--quiet")):
        command = [sys.executable, "-m", "ruff", *arguments, "--stdin-filename", str(SYNC), "-"]
        text = subprocess.run(command, input=text, capture_output=True, text=True, check=True).stdout
    return text


if __name__ == "__main__":
    SYNC.write_text(generated())
