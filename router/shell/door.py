"""The door: whether a request's token lets it in."""

from __future__ import annotations

from router.core.catalog import Catalog
from router.core.tokens import ADMIN, CALL, Token, viewed
from router.proxy.calls import Calls, Target
from router.proxy.head import RequestHead
from router.proxy.proxy import Proxy
from router.shell.tokens import Tokens
from torpor.errors import EndpointNotFound, Forbidden, Unauthorized
from torpor.wire import OWN_TOKEN

HEALTH = frozenset((b"/healthz", b"/livez", b"/readyz"))  # the router's own, for whoever balances load: open to all


class Door:
    """Implements the proxy's `Door`. `required`: tokens are asked for also where none was ever made; `never`: not at
    all, whatever there is.
    """

    def __init__(self, calls: Calls, catalog: Catalog, tokens: Tokens, *, required: bool, never: bool = False) -> None:
        self.tokens = tokens
        self.required = required
        self._never = never
        self._calls = calls
        self._catalog = catalog
        self._proxy: Proxy | None = None

    @property
    def asks(self) -> bool:
        """Whether a request needs a token."""
        return not self._never and (self.required or self.tokens.any())

    def stand(self, proxy: Proxy) -> None:
        """From now on the proxy asks here, as soon as there is something to ask for."""
        self._proxy = proxy
        self.look()

    def look(self) -> None:
        """A token was made: who asked for none may have to ask now."""
        if self._proxy is not None:
            self._proxy.door = self if self.asks else None

    def admit(self, head: RequestHead, port: int | None) -> Target | None:
        """1 the router's health is everybody's; 2 the token must be known, 3 its address too, 4 its scope enough."""
        if head.path in HEALTH and self._catalog.resolve(head.path, head.host, port) is None:  # 1
            return None
        token = self._holder(head.token)  # 2
        try:
            target = self._calls.resolve(head.path, head.host, port)  # 3
        except EndpointNotFound as error:
            check(token, f"{CALL}:{error.detail.get('name', '')}")  # else it could find out which endpoints there are
            raise
        if target is not None and target.endpoint:  # 4
            check(token, f"{CALL}:{target.endpoint}")
        else:
            check(token, self._needed(head, port))
        return target

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

    def _needed(self, head: RequestHead, port: int | None) -> str:
        """The scope for what the control plane answers: quiet reads are calls, and so is the view of an endpoint."""
        address = self._catalog.resolve(head.path, head.host, port)
        name = viewed(head.method, head.path) if address is None else address.endpoint
        return ADMIN if name is None else f"{CALL}:{name}"


def check(token: Token, needed: str) -> None:
    """Raises Forbidden with the scope that is lacking."""
    if not token.allows(needed):
        raise Forbidden(
            f"the token {token.name!r} may not do this: its scope is {', '.join(token.scopes)}\n"
            f"use one with the scope {needed}: `torpor tokens create`"
        )
