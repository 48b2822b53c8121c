"""The callers: mixed calls without a pause, each judged by what it should have been and by the faults meanwhile."""

from __future__ import annotations

import random
import threading
import time
from collections import Counter
from dataclasses import dataclass, field

import httpx

from torpor.chaos.faults import CODES, CUT, UNREACHABLE, Fault, met
from torpor.errors import BY_CODE

DEADLINE = 30.0  # seconds in which every call has an answer or an error
SHOWN = 4  # faults that are told with a loss, the last ones
KINDS = ("hello", "hello", "hello", "count", "leave", "refuse", "wrong", "nap")


@dataclass
class Scene:
    """What callers and faults share. `url` changes when the platform is started again."""

    url: str
    endpoints: tuple[str, ...]
    ends: float  # monotonic: until then calls are made
    faults: list[Fault] = field(default_factory=list)
    lost: list[str] = field(default_factory=list)
    counts: Counter[str] = field(default_factory=Counter)
    lock: threading.Lock = field(default_factory=threading.Lock)

    def explained(self, endpoint: str, what: str, begun: float, ended: float) -> bool:
        return any(fault.explains(endpoint, what, begun, ended) for fault in self.faults)

    def lately(self) -> str:
        """The last faults, for who looks for the cause of a loss."""
        now = time.monotonic()
        return "; ".join(fault.told(now) for fault in self.faults[: -SHOWN - 1 : -1]) or "none"

    def count(self, what: str) -> None:
        with self.lock:
            self.counts[what] += 1

    def lose(self, what: str) -> None:
        with self.lock:
            self.lost.append(what)


def caller(scene: Scene, rng: random.Random) -> None:
    """Calls until the scene ends, with pauses in which endpoints fall asleep."""
    while time.monotonic() < scene.ends:
        kind, endpoint = rng.choice(KINDS), rng.choice(scene.endpoints)
        begun = time.monotonic()
        scene.count("calls")
        fault = one(scene.url, endpoint, kind, rng)
        took = time.monotonic() - begun
        if took > DEADLINE:
            scene.lose(f"{kind} of {endpoint} had no answer within {DEADLINE:g} s")
        elif fault is not None and fault.partition(" ")[0] in ("wrong", "error"):
            scene.lose(f"{kind} of {endpoint}: {fault}")
        elif fault is not None:
            if scene.explained(endpoint, fault.partition(" ")[0], begun, time.monotonic()):
                scene.count("explained")
            else:
                scene.lose(f"{kind} of {endpoint}: {fault}, which no fault explains; the last were {scene.lately()}")
            time.sleep(0.05)
        time.sleep(rng.choice((0.0, 0.0, 0.0, 0.01, 0.4)))


def one(url: str, endpoint: str, kind: str, rng: random.Random) -> str | None:
    """One call: None when it went as it should; "wrong ..." and "error ..." are lost.

    Anything else begins with what a fault may explain, as `CAUSES` calls it.
    """
    at = f"{url}/endpoints/{endpoint}"
    name = str(rng.random())
    try:
        with httpx.Client(timeout=DEADLINE, trust_env=False) as http:
            if kind == "count":
                return counted(http, at)
            if kind == "leave":
                return left(http, at)
            if kind == "nap":
                answer, right = http.post(f"{at}/nap", json={"seconds": 0.2}), "0.2"
            elif kind == "wrong":
                answer, right = http.post(f"{at}/hello", json={"nobody": 1}), None
            elif kind == "refuse":
                answer, right = http.post(f"{at}/refuse", json={}), None
            else:
                answer, right = http.post(f"{at}/hello", json={"name": name}), f"hello {name}"
    except httpx.TimeoutException:
        return "error no answer in time"
    except httpx.ConnectError as error:
        return f"{UNREACHABLE} {error}"
    except httpx.TransportError as error:
        return f"{CUT} {type(error).__name__}"
    return judged(answer, {"wrong": 400, "refuse": 500}.get(kind, 200), right)


def judged(answer: httpx.Response, wanted: int, right: str | None) -> str | None:
    code, error = error_of(answer)
    if code in CODES and answer.status_code == BY_CODE[code].status:
        return f"{met(code, error)} {answer.status_code} {error[:200]}"
    if answer.status_code != wanted:
        return f"error {answer.status_code} {answer.text[:200]}"
    if right is not None and answer.text != right:
        return f"wrong answer {answer.text[:200]!r} and not {right!r}"
    return None


def error_of(answer: httpx.Response) -> tuple[str, str]:
    """Code and text of torpor's error that an answer is, empty when it is none."""
    if answer.status_code < 400 or "json" not in answer.headers.get("content-type", ""):
        return "", ""
    body = answer.json()
    return (str(body.get("code", "")), str(body.get("error", ""))) if isinstance(body, dict) else ("", "")


def counted(http: httpx.Client, at: str) -> str | None:
    """A stream to its end: cut short is a fault's work, a wrong or missing piece in a whole one is lost."""
    with http.stream("POST", f"{at}/count", json={"upto": 20, "pause": 0.01}) as answer:
        if answer.status_code != 200:
            answer.read()
            return judged(answer, 200, None)
        text = "".join(answer.iter_text())
    right = "".join(f"{number}\n" for number in range(20))
    return None if text == right else f"wrong stream {text!r}"


def left(http: httpx.Client, at: str) -> str | None:
    """A caller who leaves after the first piece, or before it."""
    try:
        with http.stream("POST", f"{at}/count", json={"upto": 50, "pause": 0.02}, timeout=0.2) as answer:
            if answer.status_code == 200:
                next(answer.iter_text(), None)
                return None
            answer.read()
            return judged(answer, 200, None)
    except httpx.TimeoutException:
        return None
