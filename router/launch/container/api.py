"""The REST API of a container engine over its Unix socket: Docker's, which Podman answers too.

The only importer of aiodocker.
"""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import AsyncIterator, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from router.disk import full, says_full
from router.launch.container import devices, libpod
from router.launch.container.progress import Lines
from torpor.errors import EngineFailed, EngineUnreachable

if TYPE_CHECKING:
    import aiodocker

# The first of these that is there, where the configuration names none.
VARIABLES = ("CONTAINER_HOST", "DOCKER_HOST")
USUAL = ("/run/podman/podman.sock", "{runtime}/podman/podman.sock", "/var/run/docker.sock", "{runtime}/docker.sock")
ANSWER_WITHIN = 60.0  # seconds; a build, a pull and a container's end are awaited for as long as they take
GONE = (404, 409)  # what is asked of a container that has ended, or is there no more
UNREACHED = 900  # the client's status where it could not connect: no answer, and no engine's words


@dataclass(frozen=True, slots=True)
class Kind:
    """Which engine answers."""

    name: str  # podman or docker
    version: str
    rootless: bool
    cdi: bool  # devices by their CDI names


def find_socket(configured: Path | None, env: Mapping[str, str] = os.environ) -> Path:
    """The engine's socket: what is configured, else what the environment names, else the first usual one there is.

    Raises EngineUnreachable where none is.
    """
    if configured is not None:
        return configured
    for name in VARIABLES:
        if (url := env.get(name, "")).startswith("unix://"):
            return Path(url.removeprefix("unix://"))
    runtime = env.get("XDG_RUNTIME_DIR", f"/run/user/{os.getuid()}")
    places = [Path(place.format(runtime=runtime)) for place in USUAL]
    for place in places:
        with contextlib.suppress(OSError):
            if place.is_socket():
                return place
    raise EngineUnreachable(
        f"no container engine is here: none of {', '.join(map(str, places))} is a socket\n"
        "start one (systemctl start podman.socket), or name its socket: engine = '/path/to.sock'"
    )


class ContainerApi:
    """What torpor asks of an engine. Raises EngineUnreachable, EngineFailed with the engine's words, or DiskFull."""

    def __init__(self, configured: Path | None = None) -> None:
        self._configured = configured
        self._docker: aiodocker.Docker | None = None
        self._kind: Kind | None = None

    async def close(self) -> None:
        if self._docker is not None:
            await self._docker.close()
            self._docker = None

    async def kind(self) -> Kind:
        """Asked once, and again after it could not be asked."""
        if self._kind is None:
            with self._errors("its version"):
                version, info = await self._client().version(), await self._client().system.info()
            names = [str(each.get("Name", "")).lower() for each in version.get("Components") or ()]
            name = "podman" if any("podman" in each for each in names) else "docker"
            rootless = bool(info.get("Rootless")) or "name=rootless" in (info.get("SecurityOptions") or ())
            cdi = name == "podman" or devices.named(info, str(version.get("ApiVersion", "")))
            self._kind = Kind(name, str(version.get("Version", "")), rootless, cdi)
        return self._kind

    # Containers

    async def create(self, name: str, config: dict[str, Any]) -> str:
        """The new container's id."""
        with_devices = bool(config.get("HostConfig", {}).get("DeviceRequests"))
        path, body = "containers/create", config
        if with_devices and devices.aside(await self.kind()):
            path, body = libpod.PATH, libpod.spec(name, config)
        own = body is not config
        with self._errors(f"to make the container {name}"):
            made = await self._client()._query_json(
                path, "POST", params=None if own else {"name": name}, data=body, versioned_api=not own
            )
        return str(made["Id"])

    async def start(self, container: str) -> None:
        await self._do("start", container)

    async def pause(self, container: str) -> None:
        await self._do("pause", container)

    async def unpause(self, container: str) -> None:
        await self._do("unpause", container)

    async def kill(self, container: str) -> None:
        """KILL to all of it; one that has ended stays so."""
        with contextlib.suppress(EngineFailed):
            await self._do("kill", container)

    async def remove(self, container: str) -> None:
        """Also while it runs, its volumes too; one that is gone stays so."""
        with self._errors(f"to remove the container {container[:12]}", GONE):
            await self._client().containers.container(container).delete(force=True, v=True)

    async def wait(self, container: str) -> int:
        """Returns its exit status once it has ended."""
        with self._errors(f"about the container {container[:12]}"):
            ended = await self._client().containers.container(container).wait()
        return int(ended["StatusCode"])

    async def inspect(self, container: str) -> dict[str, Any] | None:
        """None for one that is gone."""
        with self._errors(f"about the container {container[:12]}", (404,)):
            return dict(await self._client().containers.container(container).show())
        return None

    async def lines(self, container: str, count: int) -> list[str]:
        """The last lines that its first process has printed; its whole log, which is bounded, is read for them.

        Podman (4.3.1) counts the pieces in which a line was written as lines of their own, and so tells half of it.
        """
        with self._errors(f"for the log of {container[:12]}", GONE):
            told = await self._client().containers.container(container).log(stdout=True, stderr=True)
            return "".join(told).splitlines()[-count:]
        return []

    async def memory(self, container: str) -> int:
        """Bytes that its control group is charged with, less the file pages that could go; 0 for one that is gone."""
        with self._errors(f"for the memory of {container[:12]}", GONE):
            [told] = await self._client().containers.container(container).stats(stream=False)
            return charged(told.get("memory_stats") or {})
        return 0

    async def labelled(self, label: str) -> list[dict[str, Any]]:
        """Containers in any state that have a label `key=value`: `Id`, `Names`, `State`, `Labels`."""
        filters = json.dumps({"label": [label]})
        with self._errors("for its containers"):
            found = await self._client()._query_json("containers/json", params={"all": "true", "filters": filters})
        return list(found or ())

    async def _do(self, what: str, container: str) -> None:
        with self._errors(f"to {what} the container {container[:12]}"):
            async with self._client()._query(f"containers/{container}/{what}", "POST"):
                pass

    # Images

    async def image(self, reference: str) -> dict[str, Any] | None:
        """What the engine knows of an image, None for one that it does not have."""
        with self._errors(f"about the image {reference}", (404,)):
            return dict(await self._client().images.inspect(quote(reference, safe="/:@")))
        return None

    async def images(self, label: str) -> list[dict[str, Any]]:
        """Those that have a label `key=value`: `Id`, `RepoTags`, `Labels`, `Size` in bytes, `Created`, seconds."""
        filters = json.dumps({"label": [label]})
        with self._errors("for its images"):
            return list(await self._client()._query_json("images/json", params={"filters": filters}) or ())

    async def remove_image(self, image: str) -> bool:
        """Whether it went: one that a container is made of stays."""
        with self._errors(f"to remove the image {image}", GONE):
            await self._client().images.delete(image)
            return True
        return False

    async def pull(self, reference: str) -> AsyncIterator[str]:
        """The engine's lines, as they come."""
        with self._errors(f"to pull the image {reference}"):
            lines = Lines()
            async for told in self._client().images.pull(reference, stream=True):
                for line in lines.of(told):
                    yield line

    async def build(self, context: Path, tag: str, network: str | None) -> AsyncIterator[str]:
        """Builds the Dockerfile in the root of `context`, a tar; the engine's lines, as they come.

        Podman keeps no image of each step: its search for one fails where any image is removed meanwhile (4.3.1).
        """
        params = {"t": tag, "rm": "true", "forcerm": "true", "dockerfile": "Dockerfile", "layers": "false"}
        if network:
            params["networkmode"] = network
        client = self._client()
        forever = client._resolve_long_running_timeout(None)
        with self._errors(f"to build the image {tag}"), context.open("rb") as tar:
            headers = {"content-type": "application/x-tar"}
            asked = client._query("build", "POST", params=params, data=tar, headers=headers, timeout=forever)
            import aiodocker
            from aiodocker.jsonstream import json_stream_stream

            lines = Lines()
            async with asked as response:
                try:
                    async for told in json_stream_stream(response):
                        for line in lines.of(told):
                            yield line
                except aiodocker.DockerError:
                    for line in lines.end():  # what it broke off with
                        yield line
                    raise
            for line in lines.end():
                yield line

    # What goes wrong

    def _client(self) -> aiodocker.Docker:
        if self._docker is None:
            import aiodocker
            from aiohttp import ClientTimeout

            socket = find_socket(self._configured)
            self._docker = aiodocker.Docker(url=f"unix://{socket}", timeout=ClientTimeout(total=ANSWER_WITHIN))
        return self._docker

    @contextlib.contextmanager
    def _errors(self, asked: str, passing: tuple[int, ...] = ()) -> Iterator[None]:
        """The client's errors as ours; an answer of a status in `passing` is none."""
        import aiodocker
        import aiohttp

        try:
            yield
        except aiodocker.DockerError as error:
            if error.status in passing:
                return
            if error.status == UNREACHED:
                raise self._unreachable(asked, error.__context__ or error) from error
            words = " ".join(str(error.message).split())
            if (reason := says_full([words])) is not None:
                raise full(Path("the container engine"), reason) from error
            raise EngineFailed(f"the container engine was asked {asked}, and says: {words}\nsee its log") from error
        except (aiohttp.ClientError, OSError, TimeoutError) as error:
            raise self._unreachable(asked, error) from error

    def _unreachable(self, asked: str, error: BaseException) -> EngineUnreachable:
        self._kind = None
        return EngineUnreachable(
            f"the container engine was asked {asked}, and does not answer: {error}\n"
            "start it (systemctl start podman.socket); calls work again once it is there"
        )


def charged(told: Mapping[str, Any]) -> int:
    """Of an answer's `memory_stats`: usage less inactive file pages, as Docker's own command counts it."""
    stats = told.get("stats") or {}
    files = stats.get("total_inactive_file", stats.get("inactive_file", 0))
    return max(0, int(told.get("usage") or 0) - int(files))
