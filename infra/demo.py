"""`make demo`: export a model, deploy it, call it at zero replicas, watch it sleep and give its memory back."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import httpx

from torpor import Client, TorporError

ROOT = Path(__file__).resolve().parent.parent
CACHE = ROOT / ".cache"
TORPOR = str(Path(sys.executable).with_name("torpor"))
TEXTS = [
    "A cat sleeps on the warm windowsill.",
    "The kitten naps in the sun.",
    "Interest rates rose by half a percent.",
    "The central bank tightened its policy.",
]
WARM_CALLS = 50

# What a start consists of, in its order: what Server-Timing calls it, and what that is.
START = {
    "fork": "of a process that has the imports done",
    "import": "of the service's own module",
    "load": "of model and tokenizer",
    "app": "BentoML's own part",
}

GO_ON = """\
source .venv/bin/activate
export BENTOML_HOME={home}   # where the exported model is
torpor up --detach
torpor deploy services/embedding --name embedder
torpor call embedder embed --json '{{"texts": ["hello"]}}'
torpor ls
torpor down"""


def main() -> None:
    began = time.perf_counter()
    sys.stdout.reconfigure(line_buffering=True)  # type: ignore[union-attr]  # in a pipe too: commands print in between
    for name in [name for name in os.environ if name.startswith("TORPOR_")]:
        del os.environ[name]  # the user's own platform is not asked
    os.environ |= {
        "BENTOML_HOME": str(CACHE / "bentoml"),
        "BENTOML_DO_NOT_TRACK": "True",
        "TORPOR_DATA": str(CACHE / "demo"),
    }
    (CACHE / "bentoml").mkdir(parents=True, exist_ok=True)
    title("Export all-MiniLM-L6-v2 to ONNX, and compare it with PyTorch")
    run("export", "minilm", "--name", "minilm", "--precision", "fp32,int8")
    title("Start the platform")
    run("up", "--detach", "--port", "0")
    try:
        with Client() as client:  # it finds the platform by the data folder
            show(client, client.status()["pid"])
    finally:
        title("Stop what was started")
        run("down")
    title(f"That took {time.perf_counter() - began:.0f} s. Go on in a shell of your own")
    print(GO_ON.format(home=CACHE / "bentoml"))


def show(client: Client, pid: int) -> None:
    title("Deploy services/embedding")
    run("deploy", "services/embedding", "--name", "embedder", "--set", "sleep=deep")
    client.sleep("embedder")
    title("The first call at zero replicas")
    cold_call(client)
    title("Warm calls")
    warm_calls(client)
    title("Similarity of real sentences")
    similarity(client)
    title("Asleep again, its memory given back")
    give_back(client, pid)
    title("The second call at zero replicas")
    cold_call(client)
    title("The lighter sleep: a loaded process is kept, as long as its memory is not needed")
    run("deploy", "services/embedding", "--name", "embedder", "--set", "sleep=template")
    kept = template(client)
    print(f"{kept / 2**20:7.1f} MiB  of its own it keeps; the next call is answered by a fork of it:\n")
    cold_call(client)


def template(client: Client) -> int:
    """Bytes that the sleeping endpoint's template has for itself, pages of files apart."""
    client.sleep("embedder")
    for _ in range(1000):
        view = client.get("embedder")
        if view["template"] and view["template"]["state"] == "kept":
            name = view["template"]["id"]
            break
        time.sleep(0.01)
    else:
        raise TorporError(f"the endpoint keeps no template: {view['no_template']}")
    found = Path(os.environ["TORPOR_DATA"], "run", f"{name}.pid").read_text()
    lines = Path(f"/proc/{json.loads(found)['pid']}/smaps_rollup").read_text().splitlines()
    return sum(int(line.split()[1]) * 1024 for line in lines if line.startswith("Private_Dirty"))


def cold_call(client: Client) -> None:
    """One call over a new connection, with what its answer says of the time."""
    with httpx.Client() as http:
        answer, took = timed(client.url, http)
    check(answer.headers["x-torpor-cold-start"] == "true", "the endpoint was not asleep")
    phases = {
        name: float(figure.removeprefix("dur="))
        for name, _, figure in (part.strip().partition(";") for part in answer.headers["server-timing"].split(","))
    }
    print(f"{took:7.1f} ms  from the call to the whole answer, of which")
    print(f"{phases['park']:7.1f} ms  waiting for a replica to start:")
    for name, text in START.items():
        print(f"{phases.get(name, 0):15.1f} ms  {name:<6}  {text}")
    print(f"{phases['infer']:7.1f} ms  in the service's method")
    print(f"{phases['router']:7.1f} ms  in the router")


def warm_calls(client: Client) -> None:
    with httpx.Client() as http:
        took = sorted(timed(client.url, http)[1] for _ in range(WARM_CALLS))
    print(f"{took[WARM_CALLS // 2]:7.1f} ms  median of {WARM_CALLS}, one after another")


def timed(url: str, http: httpx.Client) -> tuple[httpx.Response, float]:
    """The answer, and milliseconds."""
    began = time.perf_counter()
    answer = http.post(f"{url}/endpoints/embedder/embed", json={"texts": TEXTS[:1]}, timeout=60)
    took = time.perf_counter() - began
    answer.raise_for_status()
    return answer, took * 1000


def similarity(client: Client) -> None:
    vectors = client.endpoint("embedder").embed(texts=TEXTS)
    table = vectors @ vectors.T
    for row, text in zip(table, TEXTS, strict=True):
        print("  ".join(f"{value:5.2f}" for value in row), f"  {text}")
    check(min(table[0, 1], table[2, 3]) > table[:2, 2:].max(), "sentences that mean the same are not the nearest")


def give_back(client: Client, pid: int) -> None:
    (replica,) = client.get("embedder")["replicas"]
    with_replica, own = memory(pid), memory(replica["pid"] or 0)
    check(client.sleep("embedder")["replicas"] == [], "a replica is left")
    gone = not Path(f"/proc/{replica['pid']}").exists()
    check(gone, f"the replica's process {replica['pid']} is left")
    without = memory(pid)
    print(f"{with_replica:7.1f} MiB  the platform with the replica awake, {own:.1f} of it the replica's")
    print(f"{without:7.1f} MiB  the platform with the endpoint in deep sleep: no process of its own")
    print(f"{with_replica - without:7.1f} MiB  given back\n")
    run("ls")


def memory(pid: int) -> float:
    """MiB (PSS, as in proc(5)) of a process and of all below it."""
    lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    own = next(int(line.split()[1]) for line in lines if line.startswith("Pss:"))
    children = [
        int(child) for task in Path(f"/proc/{pid}/task").iterdir() for child in (task / "children").read_text().split()
    ]
    return own / 1024 + sum(memory(child) for child in children)


def title(text: str) -> None:
    print(f"\n== {text}")


def run(*arguments: str) -> None:
    """A torpor command that has to succeed."""
    subprocess.run([TORPOR, *arguments], cwd=ROOT, check=True)


def check(right: bool, wrong: str) -> None:
    if not right:
        raise SystemExit(f"the demo failed: {wrong}")


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))  # so that the platform is stopped
    try:
        main()
    except subprocess.CalledProcessError as error:
        sys.exit(f"the demo failed: torpor {error.cmd[1]} exited with {error.returncode}")
    except (TorporError, httpx.HTTPError) as error:
        sys.exit(f"the demo failed: {error}")
    except KeyboardInterrupt:
        sys.exit(130)
