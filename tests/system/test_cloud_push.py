"""The stock bentoml command line pushes and pulls, and what was pushed runs: with the store in a folder and in S3."""

from __future__ import annotations

import base64
import hashlib
import os
import shutil
import signal
import socket
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

import httpx
import pytest

from tests.shell.pushing import model_tar
from tests.shell.s3 import BUCKET, s3_server
from tests.system.running import WITHIN, Running, running

BENTOML = str(Path(sys.executable).with_name("bentoml"))
SERVICE = """
import bentoml
from bentoml.models import BentoModel

@bentoml.service
class Greeter:
    words = BentoModel("words:latest")

    def __init__(self) -> None:
        with open(self.words.path_of("word.txt")) as file:
            self.word = file.read()

    @bentoml.api
    def greet(self, name: str) -> str:
        return f"{self.word} {name} from {self.words.path}"
"""
SAVE = """
import sys, bentoml
with bentoml.models.create("words", labels={"tongue": "en"}) as model:
    with open(model.path_of("word.txt"), "w") as file:
        file.write(sys.argv[1])
"""
MODELS = "/api/v1/model_repositories/big/models"
MANIFEST = {"module": "", "api_version": "v1", "bentoml_version": "1.4.39", "size_bytes": 1}


@dataclass(frozen=True)
class Cloud:
    """A platform, and a user of bentoml who is logged in to it."""

    platform: Running
    folder: Path

    def bentoml(self, *arguments: str) -> str:
        """What a command that has to succeed prints."""
        done = self.run(*arguments)
        assert done.returncode == 0, f"bentoml {' '.join(arguments)}: {done.returncode}\n{done.stdout}{done.stderr}"
        return " ".join(done.stdout.split())  # without the ends of its lines, which depend on the terminal's width

    def run(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        env = {**self.platform.env, "COLUMNS": "400"}
        return subprocess.run(
            [BENTOML, *arguments], env=env, cwd=self.folder, capture_output=True, text=True, timeout=WITHIN
        )

    def save(self, word: str) -> None:
        """A new version of the model `words`."""
        command = [sys.executable, "-c", SAVE, word]
        subprocess.run(command, env=self.platform.env, check=True, capture_output=True, timeout=WITHIN)

    def build(self) -> str:
        return self.bentoml("build", ".", "-o", "tag").partition("__tag__:")[2].split()[0]


@contextmanager
def logged_in(folder: Path, *flags: str) -> Iterator[Cloud]:
    with running(folder, *flags) as platform:
        context = f"contexts:\n- name: default\n  endpoint: {platform.url}\n  api_token: none\n  email: a@b.c\n"
        Path(platform.env["BENTOML_HOME"], ".yatai.yaml").write_text(f"{context}current_context_name: default\n")
        source = folder / "source"
        source.mkdir()
        (source / "service.py").write_text(SERVICE)
        yield Cloud(platform, source)


@pytest.fixture(scope="module", params=["folder", "s3"])
def cloud(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cloud]:
    folder = tmp_path_factory.mktemp("cloud")
    if request.param == "folder":
        with logged_in(folder) as made:
            yield made
        return
    with s3_server() as server:
        config = folder / "torpor.toml"
        config.write_text(f'store = "s3://{BUCKET}/torpor"\nstore_endpoint = "{server.endpoint}"\n')
        with logged_in(folder, "--config", str(config)) as made:
            yield made
            assert all(key.startswith("torpor/") and "incoming" not in key for key in server.names())
            assert server.names()


@pytest.fixture(scope="module")
def tag(cloud: Cloud) -> str:
    """A bento that was pushed with its model, and is gone from its builder's machine."""
    cloud.save("hello")
    built = cloud.build()
    said = cloud.bentoml("push", built)
    assert f'Successfully pushed bento "{built}"' in said.replace("Bento", "bento")
    assert 'Successfully pushed model "words:' in said
    assert f'Push skipped: Bento "{built}" already exists' in cloud.bentoml("push", built)
    assert "Successfully pushed" in cloud.bentoml("push", built, "--force")
    cloud.bentoml("delete", "--yes", built)
    cloud.bentoml("models", "delete", "--yes", "words")
    return built


@pytest.mark.parametrize("sleep", ["deep", "template"])
def test_a_pushed_bento_runs_with_its_pushed_model(cloud: Cloud, tag: str, sleep: str) -> None:
    with httpx.Client(base_url=cloud.platform.url, timeout=WITHIN) as http:
        body = {"name": sleep, "bento": tag, "settings": {"sleep": sleep}}
        assert '"deployed"' in http.post("/torpor/v1/endpoints", json=body).text
        for _ in range(2):
            answer = http.post(f"/endpoints/{sleep}/greet", json={"name": "you"})
            assert answer.text.startswith(f"hello you from {cloud.platform.data / 'bentos'}"), answer.text
            http.post(f"/torpor/v1/endpoints/{sleep}/sleep").raise_for_status()


def test_what_was_pushed_is_pulled_as_it_was(cloud: Cloud, tag: str) -> None:
    home = Path(cloud.platform.env["BENTOML_HOME"])
    assert f'Successfully pulled bento "{tag}"' in cloud.bentoml("pull", tag)
    assert (home / "bentos" / tag.replace(":", "/") / "src" / "service.py").read_text() == SERVICE
    assert 'Successfully pulled model "words"' in cloud.bentoml("models", "pull", "words")
    [word] = (home / "models" / "words").glob("*/word.txt")
    assert word.read_text() == "hello"


def test_the_newest_model_is_pulled_where_no_version_is_named(cloud: Cloud, tag: str) -> None:
    cloud.save("good day")
    assert "Successfully pushed" in cloud.bentoml("models", "push", "words:latest")
    shutil.rmtree(Path(cloud.platform.env["BENTOML_HOME"], "models", "words"))
    cloud.bentoml("models", "pull", "words")
    [word] = Path(cloud.platform.env["BENTOML_HOME"], "models", "words").glob("*/word.txt")
    assert word.read_text() == "good day"


def test_what_is_not_there_is_said_so(cloud: Cloud) -> None:
    done = cloud.run("pull", "nobody:1")
    assert done.returncode == 1
    assert 'Bento "nobody:1" not found on remote Bento store' in done.stdout + done.stderr
    done = cloud.run("models", "pull", "nobody")
    assert "request failed with status code 404" in " ".join((done.stdout + done.stderr).split())


def test_lists_name_what_was_pushed_with_its_repository(cloud: Cloud, tag: str) -> None:
    name, _, version = tag.partition(":")
    with httpx.Client(base_url=cloud.platform.url) as http:
        found = http.get("/api/v1/bentos").json()
        assert (name, version) in [(each["repository"]["name"], each["version"]) for each in found["items"]]
        labelled = http.get("/api/v1/model_repositories/words/models", params={"q": "tongue=en"}).json()
        assert labelled["total"] >= 1
        assert http.get("/api/v1/models", params={"q": "tongue=fr"}).json()["items"] == []
        home = http.get("/api/v1/bento_repositories/" + name).json()
        assert home["latest_bento"]["version"] == version


def test_what_is_said_of_a_version_is_checked_and_unknown_keys_are_kept(cloud: Cloud) -> None:
    with httpx.Client(base_url=cloud.platform.url) as http:
        http.post("/api/v1/model_repositories", json={"name": "big", "description": ""}).raise_for_status()
        wrong = http.post(MODELS, json={"version": "1", "description": "", "manifest": {"module": "x"}})
        assert (wrong.status_code, "size_bytes" in wrong.text) == (400, True)
        for bad in ({"version": "a/b"}, {"build_at": "soon"}, {"labels": [{"value": "x"}]}, {"version": 7}):
            body = {"version": "1", "description": "", "manifest": MANIFEST, **bad}
            assert http.post(MODELS, json=body).status_code == 400, bad
        manifest = {**MANIFEST, "metadata": {"made by": "me"}, "of later": [1]}
        made = http.post(MODELS, json={"version": "1", "description": "", "manifest": manifest})
        assert (made.status_code, made.json()["manifest"]) == (200, manifest)
        assert http.post("/api/v1/model_repositories", json={"name": "a b", "description": ""}).status_code == 400
        assert http.get(MODELS + "/unheard-of").status_code == 404


def test_an_upload_that_is_cut_off_is_no_version_and_the_next_one_is(cloud: Cloud) -> None:
    body = model_tar("big:2", os.urandom(1 << 20))
    with httpx.Client(base_url=cloud.platform.url) as http:
        http.post("/api/v1/model_repositories", json={"name": "big", "description": ""}).raise_for_status()
        said = {"version": "2", "description": "", "manifest": MANIFEST}
        http.post(MODELS, json=said).raise_for_status()
        with half_sent(cloud.platform.url, f"{MODELS}/2/upload", body):
            pass
        until(lambda: http.get(f"{MODELS}/2").json()["upload_status"] == "failed")
        right = base64.b64encode(hashlib.sha256(body).digest()).decode()
        for digest, says in (("QUJD", "which is none"), (right.swapcase(), "damaged on its way")):
            headers = {"Content-Digest": f"md5=:QUJD:, sha-256=:{digest}:"}
            refused = http.put(f"{MODELS}/2/upload", content=body, headers=headers)
            assert (refused.status_code, says in refused.text) == (400, True)
        headers = {"Content-Digest": f"sha-256=:{right}:"}
        assert http.put(f"{MODELS}/2/upload", content=body, headers=headers).status_code == 200
        assert http.get(f"{MODELS}/2").json()["upload_status"] == "success"
        assert http.get(f"{MODELS}/2/download").content == body
    assert list((cloud.platform.data / "incoming").iterdir()) == []


def test_nothing_young_is_garbage(cloud: Cloud, tag: str) -> None:
    assert cloud.platform.told("gc", "--yes").splitlines()[-1] == "freed 0.0 MiB"
    assert '"items": []' in cloud.platform.told("gc", "--json", "--dry-run")


def test_a_platform_that_is_killed_in_an_upload_has_nothing_of_it_and_takes_the_next(tmp_path: Path) -> None:
    body = model_tar("big:1", os.urandom(8 << 20))
    with running(tmp_path) as platform, httpx.Client(base_url=platform.url) as http:
        http.post("/api/v1/model_repositories", json={"name": "big", "description": ""}).raise_for_status()
        http.post(MODELS, json={"version": "1", "description": "", "manifest": MANIFEST}).raise_for_status()
        http.patch(f"{MODELS}/1/start_upload").raise_for_status()
        with half_sent(platform.url, f"{MODELS}/1/upload", body):
            until(lambda: any(path.stat().st_size for path in (platform.data / "incoming").iterdir()))
            os.kill(platform.pid, signal.SIGKILL)
            until(lambda: not Path(f"/proc/{platform.pid}/stat").exists())
    assert len(list((tmp_path / "data" / "incoming").iterdir())) == 1
    with running(tmp_path) as platform, httpx.Client(base_url=platform.url) as http:
        assert list((platform.data / "incoming").iterdir()) == []
        assert not list((platform.data / "depot").glob("*/*"))
        assert http.get(f"{MODELS}/1").json()["upload_status"] == "uploading"
        assert http.put(f"{MODELS}/1/upload", content=body).status_code == 200
        assert http.get(f"{MODELS}/1/download").content == body


def test_gc_tells_what_it_frees_and_frees_it_when_it_is_told_to(tmp_path: Path) -> None:
    with running(tmp_path) as platform, httpx.Client(base_url=platform.url) as http:
        http.post("/api/v1/model_repositories", json={"name": "big", "description": ""}).raise_for_status()
        http.post(MODELS, json={"version": "1", "description": "", "manifest": MANIFEST}).raise_for_status()
        http.put(f"{MODELS}/1/upload", content=model_tar("big:1", os.urandom(3 << 20))).raise_for_status()
    with sqlite3.connect(tmp_path / "data" / "torpor.db") as database:
        database.execute("UPDATE artifacts SET updated_at = updated_at - 7200")
    with running(tmp_path) as platform, httpx.Client(base_url=platform.url) as http:
        told = " ".join(platform.told("gc", "--dry-run").split())
        assert told == "KIND NAME SIZE model big:1 3.0 MiB would free 3.0 MiB"
        refused = platform.torpor("gc")
        assert (refused.returncode, "free 3.0 MiB? [y/N]" in refused.stderr) == (1, True)
        assert http.get(f"{MODELS}/1").json()["upload_status"] == "success"
        assert platform.told("gc", "--yes").endswith("freed 3.0 MiB\n")
        assert http.get(f"{MODELS}/1").status_code == 404
        assert not [path for path in (platform.data / "depot").rglob("*") if path.is_file()]


@contextmanager
def half_sent(url: str, path: str, body: bytes) -> Iterator[None]:
    """A PUT of which the first half has been sent; the line breaks at the end."""
    at = urlsplit(url)
    with socket.create_connection((at.hostname, at.port)) as line:
        head = f"PUT {path} HTTP/1.1\r\nHost: {at.netloc}\r\nContent-Length: {len(body)}\r\n\r\n"
        line.sendall(head.encode() + body[: len(body) // 2])
        yield


def until(happened: Callable[[], bool]) -> None:
    give_up = time.monotonic() + WITHIN
    while not happened():
        assert time.monotonic() < give_up, "it did not happen"
        time.sleep(0.02)
