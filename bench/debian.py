"""Peers that Debian packages: found on the machine, else unpacked into the bench's cache, never installed."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys

from bench.platform import CACHE

_ROOT = CACHE / "debian"
_PLACES = ("usr/bin", "usr/sbin")


def tools(*names: str) -> dict[str, str]:
    """The path of each program, whose package has its name. Raises SystemExit where one cannot be had.

    Unpacked and not installed, because the installation of a server starts it.
    """
    found = {name: _find(name) for name in names}
    missing = [name for name, path in found.items() if path is None]
    if missing:
        _unpack(missing)
        found |= {name: _find(name) for name in missing}
    return {name: path for name, path in found.items() if path is not None}


def libraries() -> dict[str, str]:
    """The environment in which an unpacked program finds its libraries."""
    folders = [str(path) for path in sorted((_ROOT / "usr" / "lib").glob("*-linux-gnu*"))]
    if "LD_LIBRARY_PATH" in os.environ:
        folders.append(os.environ["LD_LIBRARY_PATH"])
    return {**os.environ, "LD_LIBRARY_PATH": ":".join(folders)} if folders else dict(os.environ)


def _find(name: str) -> str | None:
    places = [os.environ.get("PATH", ""), "/usr/sbin", *(str(_ROOT / place) for place in _PLACES)]
    return shutil.which(name, path=":".join(places))


def _unpack(packages: list[str]) -> None:
    wanted = " ".join(packages)
    if os.geteuid() != 0 or shutil.which("apt-get") is None:
        raise SystemExit(f"the bench needs {wanted}\nRun `apt-get install {wanted}` as root, then the bench again.")
    archives = _ROOT / "archives"
    (archives / "partial").mkdir(parents=True, exist_ok=True)
    get = [
        "apt-get",
        "-qq",
        "-y",
        "--no-install-recommends",
        "--download-only",
        "-o",
        f"Dir::Cache::archives={archives}",
    ]
    try:
        subprocess.run(["apt-get", "-qq", "update"], check=True, stdout=sys.stderr)
        subprocess.run([*get, "install", *packages], check=True, stdout=sys.stderr)
        for archive in sorted(archives.glob("*.deb")):
            subprocess.run(["dpkg-deb", "-x", str(archive), str(_ROOT)], check=True, stdout=sys.stderr)
    except subprocess.CalledProcessError as fault:
        command = " ".join(fault.cmd)
        raise SystemExit(
            f"the bench could not fetch {wanted}: `{command}` ended with {fault.returncode}\n"
            f"Mend what it says above, or install {wanted} by hand."
        ) from None
    finally:
        shutil.rmtree(archives, ignore_errors=True)
