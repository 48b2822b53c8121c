#!/usr/bin/env python3
"""Drive the stock `bentoml` command line through the BentoCloud API of a server, and check what comes of it.

    python bentocloud_conformance.py http://127.0.0.1:PORT TOKEN [--only NAME] [--timeout SECONDS]

Needs only bentoml (and what comes with it) beside this interpreter. Prints a line a check and a closing
'N passed, N failed'; exits 1 when one failed. Everything it makes on the server carries a name of its own
(`conf-...`) and is deleted at the end. Proven with bentoml 1.4.39.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Callable
from pathlib import Path

import httpx
import yaml

ECHO = """
import os
import bentoml

@bentoml.service(name="conf_echo")
class Echo:
    @bentoml.api
    def say(self, text: str) -> str:
        return f"{os.environ.get('GREETING', 'hello')} {text}"

    @bentoml.api
    def secret(self) -> str:
        return os.environ.get("CONF_SECRET", "none")
"""
WITH_MODEL = """
import pathlib
import bentoml

@bentoml.service(name="conf_model")
class WithModel:
    weights = bentoml.models.BentoModel("conf_weights:latest")

    @bentoml.api
    def size(self) -> int:
        return len(pathlib.Path(self.weights.path_of("weights.bin")).read_bytes())
"""
BROKEN = """
import bentoml

@bentoml.service(name="conf_broken")
class Broken:
    def __init__(self) -> None:
        raise RuntimeError("the model file is not there")

    @bentoml.api
    def say(self, text: str) -> str:
        return text
"""
WEIGHTS_BYTES = 3_000_000


class Failed(Exception):
    """A check did not hold; the message says what was seen."""


class Cli:
    """The bentoml command with a home folder of its own."""

    def __init__(self, work: Path, endpoint: str, token: str, timeout: float) -> None:
        self.work, self.endpoint, self.token, self.timeout = work, endpoint, token, timeout
        self.home = work / "home"

    def run(self, *args: str, home: Path | None = None, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
        env = os.environ | {
            "BENTOML_HOME": str(home or self.home),
            "BENTOML_DO_NOT_TRACK": "True",
            "COLUMNS": "200",
            "NO_COLOR": "1",
        }
        command = [str(Path(sys.executable).with_name("bentoml")), *args]
        return subprocess.run(
            command, env=env, cwd=cwd or self.work, text=True, capture_output=True, timeout=self.timeout
        )

    def ok(self, *args: str, home: Path | None = None, cwd: Path | None = None) -> str:
        done = self.run(*args, home=home, cwd=cwd)
        if done.returncode:
            raise Failed(f"`bentoml {' '.join(args)}` exited {done.returncode}: {(done.stdout + done.stderr)[-400:]!r}")
        return done.stdout

    def refused(self, *args: str) -> str:
        done = self.run(*args)
        if not done.returncode:
            raise Failed(f"`bentoml {' '.join(args)}` succeeded: {done.stdout[-200:]!r}")
        return done.stdout + done.stderr

    def login(self, home: Path | None = None, token: str | None = None) -> str:
        return self.ok("cloud", "login", "--endpoint", self.endpoint, "--api-token", token or self.token, home=home)

    def project(self, name: str, source: str) -> Path:
        folder = self.work / name
        folder.mkdir(exist_ok=True)
        (folder / "service.py").write_text(source)
        return folder

    def build(self, folder: Path) -> str:
        return self.ok("build", "-o", "tag", str(folder)).strip().rsplit("__tag__:", 1)[1]

    def deployment(self, name: str) -> dict[str, object]:
        found: dict[str, object] = json.loads(self.ok("deployment", "get", name, "-o", "json"))
        return found

    def status(self, name: str) -> str:
        status = self.deployment(name)["status"]
        return str(status["status"] if isinstance(status, dict) else status)

    def url(self, name: str) -> str:
        urls = self.deployment(name).get("endpoint_urls")
        if not isinstance(urls, list) or len(urls) != 1:
            raise Failed(f"endpoint_urls of {name} is {urls!r}, wanted exactly one")
        return str(urls[0])


def expect(claim: bool, seen: object) -> None:
    if not claim:
        raise Failed(str(seen)[-400:])


def call(url: str, method: str, token: str | None = None, **body: object) -> httpx.Response:
    headers = {"Authorization": f"Bearer {token}"} if token else {}
    return httpx.post(f"{url}/{method}", json=body, headers=headers, timeout=60)


def until(seen: Callable[[], object], wanted: object, within: float = 60) -> None:
    deadline = time.monotonic() + within
    while (last := seen()) != wanted:
        if time.monotonic() > deadline:
            raise Failed(f"after {within:.0f} s still {last!r}, wanted {wanted!r}")
        time.sleep(0.5)


def check_login(cli: Cli) -> None:
    expect("Logged in as" in cli.login(), "no word of the login")
    refused = cli.refused("cloud", "login", "--endpoint", cli.endpoint, "--api-token", "wrong")
    expect("401" in refused, refused)
    cli.login()
    expect(cli.endpoint in cli.ok("cloud", "current-context"), "context lacks the endpoint")


def check_push_and_pull(cli: Cli) -> None:
    tag = cli.build(cli.project("echo", ECHO))
    expect("Successfully pushed" in cli.ok("push", tag), "not pushed")
    expect("skipped" in cli.ok("push", tag), "a second push was not skipped")
    cli.ok("push", "--force", tag)
    other = cli.work / "other-home"
    cli.login(home=other)
    cli.ok("pull", tag, home=other)
    expect(json.loads(cli.ok("get", tag, "-o", "json", home=other))["version"] == tag.split(":")[1], "pulled another")
    cli.refused("pull", "conf_echo:nosuchversion")


def check_models(cli: Cli) -> None:
    make = (
        "import bentoml, sys\n"
        "with bentoml.models.create('conf_weights') as m:\n"
        f"    open(m.path_of('weights.bin'), 'wb').write(b'x' * {WEIGHTS_BYTES})\n"
        "print(m.tag)\n"
    )
    env = os.environ | {"BENTOML_HOME": str(cli.home), "BENTOML_DO_NOT_TRACK": "True"}
    tag = subprocess.run(
        [sys.executable, "-c", make], env=env, text=True, capture_output=True, check=True
    ).stdout.split()[-1]
    cli.ok("models", "push", tag)
    other = cli.work / "model-home"
    cli.login(home=other)
    cli.ok("models", "pull", tag, home=other)
    expect(tag in cli.ok("models", "list", "-o", "json", home=other), "the pulled model is not listed")


def check_secrets(cli: Cli) -> None:
    name = "conf-secret"
    cli.ok("secret", "create", name, "CONF_SECRET=first")
    listed = cli.ok("secret", "list", "-o", "json")
    expect(name in listed, listed)
    cli.ok("secret", "apply", name, "CONF_SECRET=second")


def check_tokens(cli: Cli) -> None:
    printed = cli.ok("api-token", "create", "conf-token", "--scope", "api", "--expires", "1d", "-o", "json")
    made = json.loads(printed[printed.index("\n{") :])
    token, uid = made["token"], made["uid"]
    cli.login(home=cli.work / "token-home", token=token)
    expect(token not in cli.ok("api-token", "list", "-o", "json"), "the list shows the token itself")
    cli.ok("api-token", "get", uid)
    cli.ok("api-token", "delete", uid)
    expect(
        "401" in cli.refused("cloud", "login", "--endpoint", cli.endpoint, "--api-token", token),
        "a deleted token logs in",
    )
    cli.login()


def check_deploy_and_call(cli: Cli) -> None:
    from bentoml import SyncHTTPClient

    folder = cli.project("echo", ECHO)
    out = cli.ok(
        "deploy",
        str(folder),
        "--name",
        "conf-echo",
        "--env",
        "GREETING=good day",
        "--secret",
        "conf-secret",
        "--scaling-min",
        "0",
        "--scaling-max",
        "2",
    )
    expect("is ready" in out, out)
    url = cli.url("conf-echo")
    answer = call(url, "say", text="world")
    expect(answer.status_code == 200 and answer.text == "good day world", (answer.status_code, answer.text))
    expect(call(url, "secret").text == "second", "the secret did not arrive")
    with SyncHTTPClient(url) as client:
        expect(client.say(text="client") == "good day client", "SyncHTTPClient got another answer")
    expect("conf-echo" in cli.ok("deployment", "list", "-o", "json"), "not listed")


def check_name_taken(cli: Cli) -> None:
    refused = cli.refused("deploy", str(cli.project("echo", ECHO)), "--name", "conf-echo")
    expect("conf-echo" in refused, refused)


def check_update(cli: Cli) -> None:
    cli.ok("deployment", "update", "conf-echo", "--env", "GREETING=bye")
    url = cli.url("conf-echo")
    until(lambda: call(url, "say", text="x").text, "bye x")
    changed = cli.project("echo2", ECHO.replace('f"{os', 'f"v2 {os'))
    cli.ok("deployment", "update", "conf-echo", "--bento", str(changed))
    until(lambda: call(url, "say", text="x").text, "v2 bye x")


def check_python_client(cli: Cli) -> None:
    code = "import bentoml; print(bentoml.deployment.get('conf-echo').get_client().say(text='py'))"
    env = os.environ | {"BENTOML_HOME": str(cli.home), "BENTOML_DO_NOT_TRACK": "True"}
    done = subprocess.run([sys.executable, "-c", code], env=env, text=True, capture_output=True, timeout=cli.timeout)
    expect(done.stdout.strip() == "v2 bye py", done.stdout + done.stderr)


def check_terminate_and_restart(cli: Cli) -> None:
    cli.ok("deployment", "terminate", "conf-echo")
    until(lambda: cli.status("conf-echo"), "terminated")
    cli.ok(
        "deployment", "update", "conf-echo", "--scaling-min", "0"
    )  # 1.4.39's own `deployment start` fails before it sends anything
    until(lambda: call(cli.url("conf-echo"), "say", text="x").status_code, 200)


def check_apply_file(cli: Cli) -> None:
    tag = cli.build(cli.project("model", WITH_MODEL))
    config: dict[str, object] = {
        "name": "conf-model",
        "bento": tag,
        "services": {"conf_model": {"scaling": {"min_replicas": 0, "max_replicas": 1}}},
    }
    file = cli.work / "deployment.yaml"
    for greeting in ("one", "two"):
        file.write_text(yaml.safe_dump(config | {"envs": [{"name": "GREETING", "value": greeting}]}))
        cli.ok("deployment", "apply", "-f", str(file))
        config["cluster"] = cli.deployment("conf-model")[
            "cluster"
        ]  # the client refuses a second apply that leaves it out
    until(lambda: cli.status("conf-model") in ("running", "scaled-to-zero"), True)
    answer = call(cli.url("conf-model"), "size")
    expect(answer.text == str(WEIGHTS_BYTES), (answer.status_code, answer.text))


def check_authorization(cli: Cli) -> None:
    cli.ok("deploy", str(cli.project("echo", ECHO)), "--name", "conf-closed", "--access-authorization", "true")
    url = cli.url("conf-closed")
    expect(call(url, "say", text="x").status_code == 401, "a call without a token was let in")
    expect(call(url, "say", token="wrong", text="x").status_code == 401, "a wrong token was let in")
    expect(call(url, "say", token=cli.token, text="x").status_code == 200, "the right token was not let in")


def check_canary(cli: Cli) -> None:
    tag = cli.build(cli.project("echo", ECHO))
    other = cli.build(cli.project("echo2", ECHO.replace('f"{os', 'f"v2 {os')))
    config = {
        "name": "conf-canary",
        "bento": tag,
        "services": {"conf_echo": {}},
        "canary": {
            "route_type": "header",
            "route_by": "X-Try",
            "versions": {"new": {"bento": other, "weight": 50, "services": {"conf_echo": {}}}},
        },
    }
    file = cli.work / "canary.yaml"
    file.write_text(yaml.safe_dump(config))
    cli.ok("push", other)
    cli.ok("deploy", "-f", str(file))
    with httpx.Client(base_url=cli.url("conf-canary"), timeout=60) as client:
        answers = {client.post("/say", json={"text": "x"}, headers={"X-Try": str(n)}).text for n in range(40)}
        once = {client.post("/say", json={"text": "x"}, headers={"X-Try": "same"}).text for _ in range(10)}
    expect(answers == {"hello x", "v2 hello x"}, answers)
    expect(len(once) == 1, f"one header value met two versions: {once}")


def check_broken(cli: Cli) -> None:
    done = cli.run("deploy", str(cli.project("broken", BROKEN)), "--name", "conf-broken", "--timeout", "90")
    expect(
        done.returncode != 0 and "not ready" in done.stdout + done.stderr,
        (done.returncode, (done.stdout + done.stderr)[-300:]),
    )
    expect(
        cli.status("conf-broken") in ("failed", "unhealthy"),
        cli.deployment("conf-broken")["status"],
    )


def check_delete(cli: Cli) -> None:
    url = cli.url("conf-echo")
    cli.ok("deployment", "delete", "conf-echo")
    cli.refused("deployment", "get", "conf-echo")

    def gone() -> bool:
        try:
            return call(url, "say", text="x").status_code == 404
        except httpx.TransportError:
            return True

    until(gone, True)
    cli.refused("deployment", "delete", "conf-echo")


def check_instance_types(cli: Cli) -> None:
    found = json.loads(cli.ok("deployment", "list-instance-types", "-o", "json"))
    expect(len(found) >= 1, found)


CHECKS: list[Callable[[Cli], None]] = [
    check_login, check_push_and_pull, check_models, check_secrets, check_tokens, check_instance_types,
    check_deploy_and_call, check_name_taken, check_update, check_python_client, check_terminate_and_restart,
    check_apply_file, check_authorization, check_canary, check_broken, check_delete,
]  # fmt: skip


def clean(cli: Cli) -> None:
    for name in ("conf-echo", "conf-model", "conf-closed", "conf-canary", "conf-broken"):
        cli.run("deployment", "delete", name)
    cli.run("secret", "delete", "conf-secret")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("endpoint")
    parser.add_argument("token")
    parser.add_argument(
        "--only", action="append", default=[], help="a check's name without check_ (later ones may need earlier ones)"
    )
    parser.add_argument("--timeout", type=float, default=300, help="seconds a single command may take")
    options = parser.parse_args()
    passed = failed = 0
    with tempfile.TemporaryDirectory(prefix=f"conf-{uuid.uuid4().hex[:6]}-") as folder:
        cli = Cli(Path(folder), options.endpoint.rstrip("/"), options.token, options.timeout)
        for check in CHECKS:
            name = check.__name__.removeprefix("check_")
            if options.only and name not in options.only:
                continue
            began = time.monotonic()
            try:
                check(cli)
            except (Failed, subprocess.TimeoutExpired, httpx.HTTPError, KeyError, ValueError) as exc:
                failed += 1
                print(f"FAIL {name}: {type(exc).__name__}: {exc}", flush=True)
            else:
                passed += 1
                print(f"ok   {name} ({time.monotonic() - began:.1f} s)", flush=True)
        clean(cli)
    print(f"{passed} passed, {failed} failed")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
