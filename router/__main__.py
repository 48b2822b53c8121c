"""`python -P -m router`: runs the router until it is told to end."""

from __future__ import annotations

import argparse
import asyncio
import gc
import json
import os
import resource
import signal
import sys
from pathlib import Path

import uvloop

from router.build import build, write_address
from router.config import Config, load
from router.log import configure
from router.store import DataLock
from torpor.cli.exits import exit_code
from torpor.errors import TorporError

DESCRIPTORS = 1 << 16


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m router", description="Runs torpor's router.")
    parser.add_argument("--data", help="folder of everything durable")
    parser.add_argument("--host", help="address to listen on")
    parser.add_argument("--port", type=int, help="TCP port; 0 takes a free one")
    parser.add_argument("--log-level", help="debug, info, warning or error")
    parser.add_argument("--log-file", type=Path, help="where the log goes, bounded; else to standard error")
    parser.add_argument("--config", type=Path, help="a torpor.toml")
    parser.add_argument("--print-config", action="store_true", help="print the configuration and end")
    parser.add_argument("--json", action="store_true", help="print JSON: the configuration, the address, an error")
    return parser.parse_args()


async def run(config: Config, as_json: bool) -> None:
    router = build(config)
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, router.stop.set)
    address = config.data / "torpor.json"

    def started(url: str) -> None:
        write_address(address, url, router.started_at)
        gc.collect()
        gc.freeze()  # what exists now lives as long as the router: the collector need not look at it again
        told = json.dumps({"url": url, "pid": os.getpid()}) if as_json else f"torpor listens on {url}"
        print(told, flush=True)

    try:
        await router.serve(started)
    finally:
        address.unlink(missing_ok=True)
        router.store.close()


def main() -> int:
    wanted = arguments()
    flags = {"data": wanted.data, "host": wanted.host, "port": wanted.port, "log_level": wanted.log_level}
    try:
        config = load(wanted.config, os.environ, flags)
        if wanted.print_config:
            print_config(config, wanted.json)
            return 0
        lock = DataLock(config.data)
    except TorporError as error:
        return failed(error, wanted.json)
    configure(config.log_level, wanted.log_file)
    raise_limits()
    code = 0
    try:
        uvloop.run(run(config, wanted.json))
    except* TorporError as group:  # out of the router's tasks, such as a port that is taken
        code = failed(first(group), wanted.json)
    finally:
        lock.close()
    return code


def raise_limits() -> None:
    """A descriptor for each caller and for each call's replica: the usual 1024 are 500 streams."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = DESCRIPTORS if hard == resource.RLIM_INFINITY else min(hard, DESCRIPTORS)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


def first(group: BaseExceptionGroup[TorporError]) -> TorporError:
    found = group.exceptions[0]
    return first(found) if isinstance(found, BaseExceptionGroup) else found


def failed(error: TorporError, as_json: bool) -> int:
    if as_json:
        print(json.dumps(error.body()), flush=True)
    else:
        print(error.message, file=sys.stderr)
    return exit_code(error)


def print_config(config: Config, as_json: bool) -> None:
    if as_json:
        print(json.dumps(config.shown()))
        return
    for key, value in config.shown().items():
        if isinstance(value, dict):
            print(f"\n[{key}]")
            for inner, setting in value.items():
                print(f"{inner} = {json.dumps(setting)}")
        else:
            print(f"{key} = {json.dumps(value)}")


if __name__ == "__main__":
    sys.exit(main())
