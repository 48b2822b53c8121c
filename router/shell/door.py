"""The door: whether a request's token lets it in."""

from __future__ import annotations

from router.core.access import effective
from router.core.catalog import Catalog
from router.core.cloud import EVERYBODY, Scopes, scopes_for
from router.core.split import endpoint_of
from router.core.tokens import ADMIN, CALL, Token, viewed
from router.proxy.calls import Calls, Target
from router.proxy.head import RequestHead
from router.proxy.proxy import Proxy
from router.shell.tokens import Tokens
from torpor.errors import EndpointNotFound, FixTheCall, Forbidden, Unauthorized
from torpor.wire import OWN_TOKEN

HEALTH = frozenset((b"/healthz", b"/livez", b"/readyz"))  # the router's own, for whoever balances load: open to all


class Door:
    """Implements the proxy's `Door`. `required`: tokens are asked for also where none was ever made; `never`: not at
    all, whatever there is. An endpoint's own `access` comes before both; `opens`: also where that says that nobody is
    asked (else that is left to the platform).
    """

    def __init__(
        self,
        calls: Calls,
        catalog: Catalog,
        tokens: Tokens,
        *,
        required: bool,
        never: bool = False,
        opens: bool = True,
    ) -> None:
        self.tokens = tokens
        self.required = required
        self._never = never
        self._opens = opens
        self._calls = calls
        self._catalog = catalog
        self._proxy: Proxy | None = None

    @property
    def asks(self) -> bool:
        """Whether a request needs a token."""
        return not self._never and (self.required or self.tokens.any())

    def asks_of(self, line: str) -> bool:
        """Whether a call of an endpoint, or of a variant by its line, needs a token."""
        needed = effective(self._catalog.access(line), self._opens)
        return self.asks if needed is None else needed

    def stand(self, proxy: Proxy) -> None:
        """From now on the proxy asks here, as soon as there is something to ask for."""
        self._proxy = proxy
        self._catalog.changed = self.look
        self.look()

    def look(self) -> None:
        """A token was made, or an endpoint deployed: who asked for none may have to ask now."""
        if self._proxy is not None:
            self._proxy.door = self if self.asks or self._catalog.closed else None

    def admit(self, head: RequestHead, port: int | None) -> Target | None:
        """Where the request goes, once 1 its token is known and 2 its scope enough: for a call, and for what else
        the control plane answers. 3 What is everybody's needs none.
        """
        try:
            target = self._calls.resolve(head.path, head.host, port)
        except EndpointNotFound as error:  # else it could find out which endpoints there are
            if self.asks:
                check(self._holder(head.token), f"{CALL}:{error.detail.get('name', '')}")
            raise
        if target is not None and target.endpoint:
            self._check_call(head, target.endpoint)
        elif (address := self._catalog.resolve(head.path, head.host, port)) is not None:  # a quiet read is a call
            self._check_call(head, address.endpoint)
        elif self.asks and (needed := self._needed(head)) is not EVERYBODY:  # 3
            check(self._holder(head.token), *needed)
        return target

    def _check_call(self, head: RequestHead, line: str) -> None:
        if not self.asks_of(line):
            return
        endpoint = endpoint_of(line)
        try:
            check(self._holder(head.token), f"{CALL}:{endpoint}")
        except FixTheCall:
            if self._proxy is not None:
                self._proxy.tallies.of(endpoint).barred += 1
            raise

    def _holder(self, digest: bytes) -> Token:
        if not digest:
            raise Unauthorized(
                "this platform asks for a token, and the request has none\n"
                f"send `Authorization: Bearer <token>` or `{OWN_TOKEN}: <token>`; torpor's clients take TORPOR_TOKEN"
            )
        token = self.tokens.known(digest)
        if token is None:
            raise Unauthorized("the token is unknown, revoked or over\nget another: `torpor tokens create`")
        return token

    def _needed(self, head: RequestHead) -> Scopes:
        """For what the control plane answers: 1 its health is everybody's, and so are its pages, which ask by
        themselves, and its front, which leads a browser to them, 2 the view of an endpoint is for its callers.
        """
        of_cloud = EVERYBODY if head.path in HEALTH else scopes_for(head.method, head.path)  # 1
        if of_cloud is not None:
            return of_cloud
        if not head.token and head.path.partition(b"?")[0] == b"/":
            return EVERYBODY
        name = viewed(head.method, head.path)  # 2
        return (ADMIN if name is None else f"{CALL}:{name}",)


def check(token: Token, *needed: str) -> None:
    """One scope of those is enough. Raises Forbidden with what is lacking."""
    if not any(token.allows(each) for each in needed):
        raise Forbidden(
            f"the token {token.name!r} may not do this: its scope is {', '.join(token.scopes)}\n"
            f"use one with the scope {' or '.join(needed)}: `torpor tokens create`"
        )
