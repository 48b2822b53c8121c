"""`python -P -m router`: runs the router until it is told to end."""

from __future__ import annotations

import argparse
import asyncio
import dataclasses
import gc
import json
import os
import resource
import signal
import sys
from collections.abc import Callable
from pathlib import Path

import uvloop

from router.address import write_address
from router.build import build
from router.config import Config, load
from router.core.settings import RUNGS
from router.log import configure
from router.router import Router
from router.store import DataLock
from torpor.cli.exits import exit_code
from torpor.errors import InvalidConfig, TorporError

DESCRIPTORS = 1 << 16
TOLD = "a token for everything, shown this once: {}\nkeep it: export TORPOR_TOKEN=..., or Authorization: Bearer ..."
TRUST = "its certificate is self-signed; to trust it: export TORPOR_CACERT={0}, or curl --cacert {0}"


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m router", description="Runs torpor's router.")
    parser.add_argument("--data", help="folder of everything durable")
    parser.add_argument("--host", help="address to listen on")
    parser.add_argument("--launcher", choices=tuple(RUNGS), help="how replicas run where a deploy says nothing")
    parser.add_argument("--port", type=int, help="TCP port; 0 takes a free one")
    parser.add_argument("--log-level", help="debug, info, warning or error")
    parser.add_argument("--log-file", type=Path, help="where the log goes, bounded; else to standard error")
    parser.add_argument("--tls", choices=["self-signed"], help="HTTPS with a certificate made here, for trying")
    parser.add_argument("--token-fd", type=int, help="where the text of a first token goes, where one is made")
    parser.add_argument("--config", type=Path, help="a torpor.toml")
    parser.add_argument("--print-config", action="store_true", help="print the configuration and end")
    parser.add_argument("--json", action="store_true", help="print JSON: the configuration, the address, an error")
    return parser.parse_args()


async def run(config: Config, wanted: argparse.Namespace) -> None:
    router = build(config)
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, router.stop.set)
    # A service that has nothing to read again stays, and `nohup` without a certificate is heeded.
    if router.certificates is not None or signal.getsignal(signal.SIGHUP) != signal.SIG_IGN:
        loop.add_signal_handler(signal.SIGHUP, hang_up(router, terminal()))
    address = config.data / "torpor.json"
    cacert = config.tls_cert if wanted.tls else None
    made: dict[str, str] = {}

    def started(url: str) -> None:
        if wanted.token_fd is not None:
            os.close(wanted.token_fd)
        write_address(address, url, router.started_at, cacert)
        gc.collect()
        gc.freeze()  # what exists now lives as long as the router: the collector need not look at it again
        if wanted.json:
            print(json.dumps({"url": url, "pid": os.getpid(), **made}), flush=True)
            return
        print(f"torpor listens on {url}", flush=True)
        if cacert is not None:
            print(TRUST.format(cacert), flush=True)

    try:
        await router.serve(started, teller(wanted, made))
    finally:
        address.unlink(missing_ok=True)
        router.store.close()


def teller(wanted: argparse.Namespace, made: dict[str, str]) -> Callable[[str], None] | None:
    """Who shows the first token, and to nobody's log: `made` is for the JSON that a program has asked for."""

    def write(text: str) -> None:
        os.write(wanted.token_fd, text.encode())

    if wanted.token_fd is not None:
        os.set_inheritable(wanted.token_fd, False)
        return write
    if wanted.log_file is not None:
        return None
    if wanted.json:
        return lambda text: made.update(token=text)
    return (lambda text: print(TOLD.format(text), flush=True)) if sys.stdout.isatty() else None


def terminal() -> bool:
    """Whether this process has a terminal. It is taken away before the process is told of its end."""
    try:
        os.close(os.open("/dev/tty", os.O_RDWR | os.O_NOCTTY))
    except OSError:
        return False
    return True


def hang_up(router: Router, had_terminal: bool) -> Callable[[], None]:
    """SIGHUP: to read the certificate again, or the end of the terminal that the router was started on."""

    def heard() -> None:
        if had_terminal and not terminal():
            router.stop.set()
        elif router.certificates is not None:
            router.certificates.reload()

    return heard


def with_pair(config: Config, tls: str | None) -> Config:
    """The configuration with the pair that was asked for."""
    if tls is None:
        return config
    if config.tls_cert is not None:
        raise InvalidConfig("--tls self-signed and tls_cert are two certificates\nleave one of them out")
    from router.shell.selfsigned import self_signed  # a slow import, for trying only

    cert, key = self_signed(config.data / "tls", config.host, config.domain)
    return dataclasses.replace(config, tls_cert=cert, tls_key=key)


def main() -> int:
    os.environ.pop("TORPOR_TOKEN", None)  # whoever starts the router may hold one: it is not for the replicas
    wanted = arguments()
    flags = {"data": wanted.data, "host": wanted.host, "port": wanted.port, "log_level": wanted.log_level}
    flags["launcher"] = wanted.launcher
    try:
        config = load(wanted.config, os.environ, flags)
        if wanted.print_config:
            print_config(config, wanted.json)
            return 0
        lock = DataLock(config.data)
        config = with_pair(config, wanted.tls)
    except TorporError as error:
        return failed(error, wanted.json)
    configure(config.log_level, wanted.log_file, config.log_format)
    raise_limits()
    code = 0
    try:
        uvloop.run(run(config, wanted))
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
