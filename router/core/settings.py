"""How one endpoint is run: the numbers a revision carries. Parsing and bounds are in `router/config.py`."""

from __future__ import annotations

from dataclasses import dataclass

# By launcher: what may stay of an endpoint that sleeps. deep and stop: nothing. template: a process that has the
# service loaded, to fork from. fork: a container with the imports done, to fork in. pause: the container, frozen.
RUNGS = {"process": ("auto", "deep", "stop", "template"), "container": ("auto", "deep", "stop", "pause", "fork")}


@dataclass(frozen=True, slots=True)
class Settings:
    """Scaling settings of a revision; durations in seconds."""

    idle_after: float = 300.0  # from the end of the last call until the replica is stopped
    start_within: float = 600.0  # from the start of a replica until it must be ready
    queue_within: float = 600.0  # the longest that a call stays parked
    concurrency: int = 0  # calls at once in one replica; 0: what the service itself allows
    max_queue: int = 512  # parked calls; one more is answered 429
    drain_within: float = 30.0  # from draining until what still runs is cut off
    stop_within: float = 10.0  # from TERM until KILL
    max_replicas: int = 1
    min_replicas: int = 0  # kept awake
    idle_after_last: float | None = None  # of the last replica, None: idle_after
    scale_window: float = 60.0  # replicas go by the most that was needed in this time
    sleep: str = "auto"  # what stays of it while it sleeps: see RUNGS; auto: what wakes soonest, while memory allows
    keep_for: float = 86400.0  # seconds that what stays is kept unused; 0: as long as the memory allows
    launcher: str = "process"  # or container
    image: str = ""  # that containers are made of; "": one built from the bento
    egress: bool = False  # whether a container reaches the network
    gpu: int = 0  # devices handed to each container
    cpus: float = 0.0  # processors that a container may use, 0: all
    pids_limit: int = 512  # processes and threads in a container
    threads: int = 1  # intra-op threads of one replica, at most its share of the cores
    memory_limit: int = 0  # bytes that one replica may take, by measurement; 0: no limit
    rate: float = 0.0  # calls a second; one more is answered 429; 0: any number
    burst: int | None = None  # calls at once after a rest, within the rate; None: the rate, at least 1
    quota: int = 0  # calls a day (UTC); one more is answered 429; 0: any number
    port: int | None = None  # the endpoint's own port

    @property
    def rung(self) -> str:
        """What stays while the endpoint sleeps: nothing ("stop"), or what one wakes it from.

        Cards are handed to a container as it is made: one that is kept to fork in would keep them from others.
        """
        if self.sleep == "auto" and self.gpu:
            return "stop"
        if self.sleep == "auto":
            if self.launcher == "container":
                return "stop" if self.gpu else "fork"  # a container that is kept has no card
            return "template"
        return "stop" if self.sleep == "deep" else self.sleep
