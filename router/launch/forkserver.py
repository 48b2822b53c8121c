"""A fork-server of the router: one process an environment, with the imports done and no service loaded."""

from __future__ import annotations

import asyncio
import os
import subprocess
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from router.disk import disk
from router.launch.forker import Forker, pair
from torpor.errors import DiskFull, InternalError

CLOSE_WITHIN = 5.0  # seconds until a fork-server that sees the end of its control socket has ended
# Libraries that start a thread per core when they are imported would forbid the fork.
SINGLE_THREADED = ("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS", "NUMEXPR_NUM_THREADS")


class ForkServer(Forker):
    """A child of the router, in a session of its own."""

    def __init__(
        self, python: Path, log: Path, told: Callable[[dict[str, Any], Any], None], gone: Callable[[Any], None]
    ) -> None:
        super().__init__(log, told, gone)
        self._python = python
        self._process: subprocess.Popen[bytes] | None = None
        self.ready: dict[str, Any] = {}
        self.preloaded: set[str] = set()

    @property
    def spawned(self) -> bool:
        return self._process is not None

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    async def spawn(self, begun: Callable[[int], None]) -> None:
        """Starts the process, tells its pid, and waits for its imports. Raises InternalError when it does not come up.

        Cancelled or failed, it leaves no process.
        """
        ours, theirs = pair()
        env = {**os.environ, **dict.fromkeys(SINGLE_THREADED, "1")}
        command = [str(self._python), "-P", "-m", "torpor.host.forkserver", "--control-fd", str(theirs.fileno())]
        try:
            with disk(self._log.parent), theirs, self._log.open("ab") as out:
                # A few ms; were it done in a thread, a caller who is cancelled would leave a process without a pid.
                self._process = subprocess.Popen(  # noqa: ASYNC220
                    command,
                    stdin=subprocess.DEVNULL,
                    stdout=out,
                    stderr=out,
                    env=env,
                    pass_fds=(theirs.fileno(),),
                    start_new_session=True,
                )
        except DiskFull:
            ours.close()
            raise
        except OSError as error:
            ours.close()
            raise InternalError(
                f"{self._python} cannot be run: {error.strerror}\ndeploy again: that makes the environment anew"
            ) from None
        self._listen(ours)
        begun(self._process.pid)
        try:
            await self.preload(())
        except BaseException:
            self.kill()
            self._hang_up()
            raise

    async def preload(self, modules: Sequence[str]) -> None:
        """Has modules imported before the next fork; those that start threads are skipped over there."""
        wanted = [m for m in modules if m not in self.preloaded]
        if not wanted and self.ready:
            return
        self.preloaded.update(wanted)
        self._send({"op": "preload", "modules": wanted})
        self.ready = await self._answer()

    def kill(self) -> None:
        """Ends the process without a word, and leaves nothing of it to be reaped."""
        if self._process is not None and self._process.poll() is None:
            self._process.kill()
            asyncio.get_running_loop().run_in_executor(None, self._process.wait)

    async def close(self) -> None:
        """Ends the process: it sees the end of its control socket."""
        self._hang_up()
        if self._process is not None:
            try:
                await asyncio.to_thread(self._process.wait, CLOSE_WITHIN)
            except subprocess.TimeoutExpired:
                self._process.kill()
                await asyncio.to_thread(self._process.wait)
