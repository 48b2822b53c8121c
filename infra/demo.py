"""`make demo`: export a model, deploy it, call it at zero replicas, watch it sleep again, call it once more."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
CACHE = ROOT / ".cache"
TORPOR = str(Path(sys.executable).with_name("torpor"))
TEXTS = [
    "A cat sleeps on the warm windowsill.",
    "The kitten naps in the sun.",
    "Interest rates rose by half a percent.",
    "The central bank tightened its policy.",
]


def main() -> int:
    os.environ["BENTOML_HOME"] = str(CACHE / "bentoml")
    os.environ["BENTOML_DO_NOT_TRACK"] = "True"
    os.environ["TORPOR_DATA"] = str(CACHE / "demo")
    (CACHE / "bentoml").mkdir(parents=True, exist_ok=True)
    title("Export all-MiniLM-L6-v2 to ONNX, fp32 and int8")
    run(sys.executable, "-P", "-m", "models", "minilm", "--name", "minilm", cwd=ROOT)
    title("Start the platform")
    run(TORPOR, "up", "--detach", "--port", "0")
    try:
        show()
    finally:
        title("Stop what was started")
        run(TORPOR, "down")
    title("Go on in a shell of your own")
    print(f"export BENTOML_HOME={CACHE / 'bentoml'}  # where the exported model is")
    print("source .venv/bin/activate")
    print("torpor up --detach")
    print("torpor deploy services/embedding --name embedder")
    print("""torpor call embedder embed --json '{"texts": ["hello"]}'""")
    return 0


def show() -> None:
    from torpor import Client
    from torpor.cli.platform import data_folder, read_address

    found = read_address(data_folder(None))
    assert found is not None, "the platform wrote no address"
    os.environ["TORPOR_URL"] = found["url"]
    title("Deploy services/embedding")
    run(TORPOR, "deploy", str(ROOT / "services" / "embedding"), "--name", "embedder")
    with Client(found["url"]) as client:
        for which in ("first", "second"):
            client.sleep("embedder")
            title(f"The {which} call at zero replicas")
            cold_call(client, found["url"])
        warm_calls(client, found["url"])
        similarity(client)
        title("Asleep again, its memory given back")
        client.sleep("embedder")
        run(TORPOR, "ls")
        assert not client.get("embedder")["replicas"]


def cold_call(client: object, url: str) -> None:
    import httpx

    with httpx.Client() as http:
        started = time.perf_counter()
        answer = http.post(f"{url}/endpoints/embedder/embed", json={"texts": TEXTS[:1]}, timeout=60)
        took = time.perf_counter() - started
    answer.raise_for_status()
    print(f"{took * 1000:.0f} ms, cold start: {answer.headers['x-torpor-cold-start']}")
    print("phases:", answer.headers.get("server-timing", ""))
    assert answer.headers["x-torpor-cold-start"] == "true"


def warm_calls(client: object, url: str) -> None:
    import httpx

    title("Warm calls")
    took = []
    with httpx.Client() as http:
        for _ in range(50):
            started = time.perf_counter()
            http.post(f"{url}/endpoints/embedder/embed", json={"texts": TEXTS[:1]}).raise_for_status()
            took.append(time.perf_counter() - started)
    print(f"median of {len(took)}: {sorted(took)[len(took) // 2] * 1000:.1f} ms")


def similarity(client: object) -> None:
    title("Similarity of real sentences")
    vectors = client.endpoint("embedder").embed(texts=TEXTS)  # type: ignore[attr-defined]  # methods come from the schema
    for row, text in zip(vectors @ vectors.T, TEXTS, strict=True):
        print("  ".join(f"{value:5.2f}" for value in row), "", text)
    assert vectors[0] @ vectors[1] > vectors[0] @ vectors[2]


def title(text: str) -> None:
    print(f"\n== {text}", flush=True)


def run(*command: str, cwd: Path | None = None) -> None:
    subprocess.run(command, check=True, cwd=cwd)


if __name__ == "__main__":
    try:
        sys.exit(main())
    except (subprocess.CalledProcessError, AssertionError) as error:
        print(f"the demo failed: {error}", file=sys.stderr)
        sys.exit(1)
