"""`python -P -m router`: runs the router until it is told to end."""

from __future__ import annotations

import argparse
import asyncio
import gc
import json
import logging
import os
import signal
import sys
from pathlib import Path

import uvloop

from router.build import build, write_address
from router.config import Config, load
from router.store import DataLock
from torpor.errors import TorporError


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m router", description="Runs torpor's router.")
    parser.add_argument("--data", help="folder of everything durable")
    parser.add_argument("--host", help="address to listen on")
    parser.add_argument("--port", type=int, help="TCP port; 0 takes a free one")
    parser.add_argument("--log-level", help="debug, info, warning or error")
    parser.add_argument("--config", type=Path, help="a torpor.toml")
    parser.add_argument("--print-config", action="store_true", help="print the configuration and end")
    parser.add_argument("--json", action="store_true", help="print it as JSON")
    return parser.parse_args()


async def run(config: Config) -> None:
    router = build(config)
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, router.stop.set)
    address = config.data / "torpor.json"

    def started(url: str) -> None:
        write_address(address, url, router.started_at)
        gc.collect()
        gc.freeze()  # what exists now lives as long as the router: the collector need not look at it again
        print(f"torpor listens on {url}", flush=True)

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
        print(error.message, file=sys.stderr)
        return 3
    logging.basicConfig(level=config.log_level.upper(), format="%(asctime)s %(levelname)s %(name)s %(message)s")
    try:
        uvloop.run(run(config))
    except TorporError as error:
        print(error.message, file=sys.stderr)
        return 3
    finally:
        lock.close()
    return 0


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
