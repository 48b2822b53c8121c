"""One request and its answer: from the caller's head to the settled lease. It is the `Call` that the engine sees."""

from __future__ import annotations

import errno
from typing import TYPE_CHECKING, Final

from router.proxy.calls import Lease, Outcome, Target
from router.proxy.chunks import LAST, chunk
from router.proxy.head import CHUNKED, IDEMPOTENT, RequestHead
from router.proxy.stamp import to_replica, told_of
from router.proxy.waking import WAKING, waking_head, wants_events
from torpor.errors import CallTimeout, InternalError, Overloaded, ReplicaDied, ShuttingDown, TorporError

if TYPE_CHECKING:
    from router.proxy.caller import Caller
    from router.proxy.replica import Replica

_CONTINUE: Final = b"HTTP/1.1 100 Continue\r\n\r\n"
_REPLAYS_MAX: Final = 2
_OURS: Final = frozenset((errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM))  # shortages of this process


class Exchange:
    """Exactly one of these holds at a time, and says whose turn it is:

    parked     (no `lease`)                     the engine owes granted or refused
    connecting (`lease`, no `replica`)          the pool owes connected or unreachable
    forwarded  (`replica`)                      the replica owes an answer; it holds the lease
    over       (`over`)                         nothing is held
    """

    __slots__ = (
        "answered", "caller", "comforted", "complete", "expects", "head", "lease", "name", "over", "pieces",
        "replayable", "replays", "replica", "router", "sent", "sent_bytes", "started", "tap", "target", "woken",
    )  # fmt: skip

    def __init__(
        self, caller: Caller, head: RequestHead, target: Target | None, payload: bytes, complete: bool
    ) -> None:
        """`payload`: what has come of the body; `complete`: it is all of it."""
        self.caller = caller
        self.head = head
        self.started = caller.proxy.time()
        self.name = head.request_id or caller.proxy.new_id()
        self.target = target if target is not None and target.endpoint else None  # None: the control plane
        self.lease: Lease | None = None
        self.replica: Replica | None = None
        self.over = False
        self.complete = complete  # the request has come in whole
        self.expects = head.expect and not (complete or payload)  # it sends no body until it is told to
        self.answered = False  # the caller got the head of an answer
        self.replays = 0
        self.router: float  # seconds from its coming to its forwarding, parked ones included
        # What was or will be sent, head first; kept after the sending only while it may have to be sent again.
        path = head.path if target is None else target.path
        coded = self._coded(payload) if head.length == CHUNKED else payload
        forwarded = caller.forwarded if self.target is not None else told_of(head, caller.forwarded)
        wire = to_replica(head, path, forwarded, self.name, coded)
        self.sent = [wire]
        self.sent_bytes = len(wire)
        self.pieces: int  # writes to the replica
        self.replayable = True
        self.comforted = self.started  # when it was last told that it is not forgotten
        self.woken = False  # the head of an event stream is out, though no replica has answered
        # Nearly no call has one: what listens to it for a copy to a shadow.
        self.tap = None if target is None or target.split is None else caller.proxy.tap(self, target)

    @property
    def id(self) -> str:
        return self.name.decode()

    @property
    def path(self) -> bytes:
        """What the endpoint sees, or what came when it is none."""
        return self.head.path if self.target is None else self.target.path

    # What the caller does.

    def body(self, payload: bytes, complete: bool) -> None:
        """The next payload bytes of the request."""
        self.complete = complete
        self.expects = False
        payload = self._coded(payload)
        if not payload:
            return
        self.sent_bytes += len(payload)
        replica = self.replica
        if replica is None:
            self.sent.append(payload)
            return
        self.pieces += 1
        replica.transport.write(payload)
        if self.tap is not None:
            self.tap.more(payload)
        if self.replayable:
            self.sent.append(payload)
            if self.sent_bytes > self.caller.proxy.limits.replay_bytes:
                self._forget_sent()

    def _coded(self, payload: bytes) -> bytes:
        """As it goes on the wire."""
        if self.head.length == CHUNKED:
            payload = chunk(payload) if payload else b""
            if self.complete:
                payload += LAST
        return payload

    def full(self) -> bool:
        """No more of the request should be read for now."""
        if self.replica is not None:
            return self.replica.clogged
        return self.sent_bytes > self.caller.proxy.limits.read_ahead

    def caller_left(self) -> None:
        if not (self.over or self.answered):
            self.caller.proxy.tallies.left(self)
        self._abandon(Outcome.CALLER_LEFT)

    def give_up(self, error: TorporError, outcome: Outcome = Outcome.CALLER_LEFT) -> None:
        """Ends the call from our side: the caller gets the error, the replica is left to finish."""
        self._abandon(outcome)
        self.caller.fail(self, error)

    def comfort(self, now: float) -> None:
        """While it is parked, a caller who asked for an event stream gets comments, which clients skip.

        What lies between cuts a connection that is silent for a minute; a start may take longer.
        """
        parked = self.lease is None and self.target is not None and self.complete and not self.over
        if not parked or now - self.comforted < self.caller.proxy.limits.waking_every:
            return
        if self.woken or wants_events(self.head):
            self.caller.transport.write(WAKING if self.woken else waking_head(self.name) + WAKING)
            self.woken = True
        self.comforted = now

    def go_on(self, status: int) -> None:
        """The event stream whose head is out goes on with the replica's answer."""
        self.answered = True
        self.replayable = False
        self.caller.proxy.tallies.answered(self, status)
        self.caller.parked()

    def late(self) -> None:
        """`answer_within` is over."""
        within = self.caller.proxy.limits.answer_within
        error = CallTimeout(f"no answer within {within:g} s\nMake the call shorter, or raise answer_within.")
        self.give_up(error, Outcome.FAILED)

    def _abandon(self, outcome: Outcome) -> None:
        if self.over:
            return
        self.over = True
        self.tap = None
        self._forget_sent()
        calls, lease, replica = self.caller.proxy.calls, self.lease, self.replica
        self.lease = self.replica = None
        if replica is not None:
            replica.abandon(outcome)
        elif lease is not None:
            calls.settle(lease, outcome)
        elif self.target is not None:
            calls.leave(self)

    # What the engine does.

    def granted(self, lease: Lease) -> None:
        proxy = self.caller.proxy
        if self.over:
            # A grant counts only if the caller is still there.
            proxy.calls.settle(lease, Outcome.CALLER_LEFT)
            return
        self.lease = lease
        proxy.pool.take(lease.address, self)

    def refused(self, error: TorporError) -> None:
        if self.over:
            return
        self.over = True
        self.tap = None
        self._forget_sent()
        self.caller.fail(self, error)

    # What the pool and the replica do.

    def connected(self, replica: Replica) -> None:
        """The replica is free for this exchange: send what has come so far."""
        caller, sent = self.caller, self.sent
        proxy = caller.proxy
        self.replica = replica
        if self.expects and not self.replays:
            caller.transport.write(_CONTINUE)
        self.router = proxy.time() - self.started
        self.pieces = 1
        replica.begin(self, self.lease)
        if self.tap is not None:
            self.tap.forwarded(sent)
        replica.transport.write(sent[0] if len(sent) == 1 else b"".join(sent))
        if self.sent_bytes > proxy.limits.replay_bytes:
            self._forget_sent()
        if self.complete:
            caller.deadline = proxy.now + proxy.limits.answer_within
        else:
            caller.flow()

    def unreachable(self, why: Exception) -> None:
        """Nothing took the connection, so nothing was acted on."""
        error: TorporError
        if isinstance(why, OSError) and why.errno in _OURS:
            error = Overloaded(
                f"the router cannot open a connection: {why.strerror}\ntry again later, or raise its limits: ulimit -n",
                retry_after=1.0,
            )
            return self.give_up(error, Outcome.FAILED)  # the replica is not to blame
        if self.target is None:
            error = ShuttingDown("the control plane does not answer\nCall again.", retry_after=1.0)
        else:
            error = ReplicaDied(f"the replica cannot be reached: {why}\nCall again, or look at its log.")
        self._replay_or(error)

    def lost(self, unread: bool) -> None:
        """The connection ended before the first byte of an answer; `unread`: no byte of the request was read."""
        self.replica = None
        if self.target is None:
            error: TorporError = InternalError("the control plane broke off\nLook at the router's log.")
        else:
            error = ReplicaDied("the replica went away before it answered\nCall again if the call may run twice.")
        if self.replayable and (unread or self.head.method in IDEMPOTENT):
            self._replay_or(error)
        else:
            self._died(error)

    def _replay_or(self, error: TorporError) -> None:
        proxy, target = self.caller.proxy, self.target
        if self.replays >= _REPLAYS_MAX:
            self._died(error)
            return
        self.replays += 1
        lease, self.lease = self.lease, None
        self.caller.parked()
        if target is None:
            proxy.pool.take(proxy.control, self)
        elif lease is not None:
            proxy.calls.replay(self, lease, target)

    def _died(self, error: TorporError) -> None:
        self.over = True
        self.tap = None
        self._forget_sent()
        lease, self.lease = self.lease, None
        if lease is not None:
            self.caller.proxy.calls.settle(lease, Outcome.DIED)
        self.caller.fail(self, error)

    def _forget_sent(self) -> None:
        self.replayable = False
        self.sent.clear()
