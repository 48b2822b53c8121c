"""The router while it runs: what it restores, serves, cares for, and how it ends."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import uvicorn
from anyio import create_task_group
from anyio.abc import TaskGroup

from router.address import shown, unix
from router.api.app import ControlPlane
from router.api.cloud.body import Taken
from router.api.cloud.routes import Cloud
from router.api.metrics import Metrics
from router.api.session import Sessions
from router.api.views import Views
from router.config import Config
from router.core.catalog import Catalog, Registered
from router.core.split import Variant, endpoint_of
from router.core.tokens import ADMIN
from router.garbage import Garbage
from router.launch.cards import Cards
from router.launch.container.images import Images
from router.launch.launchers import Launchers
from router.launch.logs import Logs
from router.launch.machine import memory
from router.proxy.proxy import Proxy
from router.shell.certificates import Certificates
from router.shell.collector import traces_of
from router.shell.deployments import Deployments
from router.shell.deploys import Deploys
from router.shell.direct import DirectUploads
from router.shell.door import Door
from router.shell.engine import Engine
from router.shell.gauge import Gauge
from router.shell.listeners import Listeners
from router.shell.meters import Meters
from router.shell.secrets import Secrets
from router.shell.shadow import Shadows
from router.shell.watch import Watch
from router.store import Store
from torpor.errors import DiskFull, InternalError, InvalidConfig, TorporError

log = logging.getLogger("torpor.router")

WARMED = 50  # endpoints, those called last, whose packages are imported when the router starts
COUNT_EVERY = 5.0  # seconds between two writes of the endpoints' counts
LOGS_EVERY = 30.0  # seconds between two looks at the length of the replicas' logs
REST_EVERY = 60.0  # seconds between two looks for fork-servers that nobody uses, less where they may be idle for less
SWEEP_EVERY = 60.0  # seconds between two looks for containers that nobody owns

Tell = Callable[[str], None]


@dataclass(slots=True)
class Router:
    """Built by `build`; `serve` runs it until `stop` is set."""

    config: Config
    store: Store
    catalog: Catalog
    launcher: Launchers
    engine: Engine
    pushed: DirectUploads
    deploys: Deploys
    deployments: Deployments
    shadows: Shadows
    listeners: Listeners
    logs: Logs
    meters: Meters
    door: Door
    secrets: Secrets
    certificates: Certificates | None
    cards: Cards
    images: Images
    started_at: float = field(default_factory=time.time)
    stop: asyncio.Event = field(default_factory=asyncio.Event)

    async def serve(self, started: Tell, first_token: Tell | None = None) -> None:
        """Reaps orphans, puts every endpoint back on the air, serves; `started` gets the address, `first_token` the
        text of a token that had to be made: without it, one that is needed has to be there.
        """
        self._see_to_tokens(first_token is not None)
        self.secrets.load()
        traces = traces_of(self.config.otlp_endpoint)
        self.pushed.repositories.open()
        orphans = self.launcher.open()
        if orphans:
            log.warning("ended %d processes that an earlier router left: %s", len(orphans), orphans)
        control = str(self.launcher.address("control"))
        self.listeners.proxy = proxy = Proxy(self.engine, control, self.config.limits(), traces)
        self.engine.gone = proxy.pool.gone
        proxy.taps = self.shadows
        self.door.stand(proxy)
        try:
            async with create_task_group() as tasks:
                await tasks.start(self.engine.run)
                await self._serve(tasks, control, started, first_token)
                await self.stop.wait()
                await self._shut_down(proxy)
                tasks.cancel_scope.cancel()
        finally:
            await self.launcher.close()
            if traces is not None:
                await traces.close()

    async def _serve(self, tasks: TaskGroup, control: str, started: Tell, first_token: Tell | None) -> None:
        self._restore()
        await self.deployments.open()
        port = await self.listeners.open(self.config.port, main=True)
        url = f"{'http' if self.certificates is None else 'https'}://{shown(self.config.host)}:{port}"
        if first_token is not None and self.door.required and not self.door.tokens.any():
            _, text = await self.door.tokens.create(ADMIN, [ADMIN], None)
            first_token(text)
        tasks.start_soon(self._control_plane(url).serve, [unix(control)])
        catalog = self.catalog
        ports = [each.settings.port for each in (*catalog.endpoints.values(), *catalog.terminated.values())]
        await self.listeners.reopen(port for port in ports if port is not None)
        gauge = Gauge(self.engine, self.launcher, memory, self.cards.measure)
        assert self.listeners.proxy is not None
        watch = Watch(catalog, self.deploys, self.listeners.proxy.tallies, self.store.note, time.monotonic)
        cares = (self.listeners.retry, self._warm, self._count, self._bound_logs, self._rest, self._sweep, gauge.run)
        for care in (*cares, self.shadows.run, watch.run):
            tasks.start_soon(care)
        started(url)

    def _restore(self) -> None:
        """Every endpoint is callable at once, asleep, and what is beside it too."""
        for entry in self.store.load():
            self.catalog.put(entry)
            if entry.terminated:
                self.catalog.terminate(entry.name)
            else:
                self.engine.live(entry.name, entry.revision, entry.settings, entry.learned.memory)
        for name, day, used in self.store.used():
            self.engine.rates.restore(name, day, used)
        beside: dict[str, list[tuple[Variant, Registered]]] = {}
        for variant, entry in self.store.variants():
            beside.setdefault(endpoint_of(entry.name), []).append((variant, entry))
        for name, found in beside.items():
            self.catalog.vary(name, tuple(v for v, _ in found), {entry.name: entry for _, entry in found})
            for _, entry in found:
                self.engine.live(entry.name, entry.revision, entry.settings, entry.learned.memory)

    def _control_plane(self, url: str) -> Server:
        views = Views(self.engine, url, self.listeners.fault, self.config.domain)
        sessions = Sessions(self.door, time.time)
        taken = Taken(self.config.settings, self.config.respect_scaling_min, self.config.opens())
        plane = ControlPlane(
            engine=self.engine,
            deploys=self.deploys,
            metrics=self._metrics(),
            repositories=self.pushed.repositories,
            garbage=Garbage(self.pushed.repositories, self.config.data / "environments", images=self.images),
            logs=self.logs,
            views=views,
            door=self.door,
            defaults=self.config.settings,
            opens=self.config.opens(),
            domain=self.config.domain,
            data=str(self.config.data),
            started_at=self.started_at,
            archive=self.store,
            sessions=sessions,
            secrets=self.secrets,
            cloud=Cloud(
                deployments=self.deployments,
                engine=self.engine,
                logs=self.logs,
                views=views,
                pushed=self.pushed,
                taken=taken,
                sessions=sessions,
                secrets=self.secrets,
                archive=self.store,
                copies=self.shadows.seen,
                memory=self.config.memory,
                cards=self.cards.there,
            ).routes(),
        )
        options: dict[str, Any] = {"lifespan": "off", "log_config": None, "access_log": False, "server_header": False}
        return Server(uvicorn.Config(plane.app(), **options, timeout_graceful_shutdown=1))

    def _see_to_tokens(self, shown: bool) -> None:
        """Raises InvalidConfig where callers are asked for a token and nobody can have one."""
        tokens = self.door.tokens
        tokens.load()
        if not self.door.required or tokens.usable():
            return
        if tokens.any() or not shown:
            raise InvalidConfig(
                f"on {self.config.host} callers are asked for a token, and there is none that is valid\n"
                f"make one: torpor tokens create NAME --scope admin --data {self.config.data}"
            )

    def _metrics(self) -> Metrics:
        assert self.listeners.proxy is not None
        tallies, began = self.listeners.proxy.tallies, self.started_at
        return Metrics(self.engine, tallies, self.meters, self.launcher, memory, began, self.shadows)

    async def _warm(self) -> None:
        """Has the fork-servers import what the endpoints need, so that the first call after a restart is quick.

        Of thousands only those that were called last, and each bento once: the others cost nothing but their rows.
        """
        entries = sorted(self.catalog.endpoints.values(), key=lambda each: each.last_call_at or 0.0, reverse=True)
        for entry in list({each.bento: each for each in entries[:WARMED][::-1]}.values()):
            try:
                plan = await self.deploys.plan(entry.name, entry.revision)
                await self.launcher.prepare(plan)
            except TorporError as error:
                log.warning("endpoint %s: %s", entry.name, error.message.partition("\n")[0])
            except Exception:  # the edge of a task: the next call of this endpoint says what is wrong
                log.exception("endpoint %s cannot be prepared", entry.name)

    async def _count(self) -> None:
        written: dict[str, Any] = {}
        while True:
            await asyncio.sleep(COUNT_EVERY)
            with contextlib.suppress(InternalError, DiskFull):  # the store has logged it, and counts can wait
                await self._write_counts(written)

    async def _write_counts(self, written: dict[str, Any]) -> None:
        epoch = time.time() - time.monotonic()
        rows: list[tuple[str, int, int, float | None]] = []
        last_calls: dict[str, float] = {}
        for line in self.engine.schedule.lines.values():
            entry = self.catalog.endpoints.get(line.name)
            if entry is None or line.last_call is None or written.get(line.name) == line.last_call:
                continue
            last_calls[line.name] = line.last_call
            counts = (entry.calls + line.calls, entry.cold_starts + line.cold_starts)
            rows.append((line.name, *counts, epoch + line.last_call))
        if rows:
            await self.store.count(rows)
            written |= last_calls
        if used := self.engine.rates.unwritten():
            await self.store.use(used)
            self.engine.rates.wrote(used)
        await self.door.tokens.write_used()

    async def _bound_logs(self) -> None:
        while True:
            await asyncio.to_thread(self.logs.bound)
            await asyncio.sleep(LOGS_EVERY)

    async def _rest(self) -> None:
        unused = self.config.environment_idle
        while True:
            await asyncio.sleep(min(REST_EVERY, unused / 4))
            await self.launcher.rest(unused)

    async def _sweep(self) -> None:
        """What an earlier router left first."""
        while True:
            lines = self.engine.schedule.lines.values()
            await self.launcher.sweep({(line.name, line.revision) for line in lines if line.revision is not None})
            await asyncio.sleep(SWEEP_EVERY)

    async def _shut_down(self, proxy: Proxy) -> None:
        """Law 9: nobody new, refuse the queue, drain, stop."""
        self.listeners.close_all()
        await self.deployments.close()
        drain = asyncio.ensure_future(self.engine.shut_down())
        await proxy.close(max((s.settings.drain_within for s in self.engine.schedule.lines.values()), default=1.0))
        await drain
        with contextlib.suppress(InternalError, DiskFull):
            await self._write_counts({})


class Server(uvicorn.Server):
    """Uvicorn without its signals: the router has its own."""

    @contextlib.contextmanager
    def capture_signals(self) -> Any:
        yield
