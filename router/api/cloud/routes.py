"""BentoCloud's API as a whole: every route of it, and the pages that its command line links to."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

from starlette.routing import BaseRoute

from router.api.browser import BrowserLogin
from router.api.cloud.body import Taken
from router.api.cloud.deployments import DeploymentRoutes
from router.api.cloud.pods import PodRoutes
from router.api.cloud.repositories import bento_shown, repository_routes
from router.api.cloud.secrets import CloudSecretRoutes
from router.api.cloud.tokens import CloudTokenRoutes
from router.api.cloud.who import WhoRoutes
from router.api.pages.deployed import Archive, Gathering
from router.api.pages.routes import DeploymentPages
from router.api.session import LoginRoutes, Sessions
from router.api.views import Views
from router.launch.cards import Card
from router.launch.logs import Logs
from router.shell.deployments import Deployments
from router.shell.direct import DirectUploads
from router.shell.engine import Engine
from router.shell.secrets import Secrets


@dataclass(frozen=True, slots=True)
class Cloud:
    """The parts of which it tells. `memory`: bytes that all endpoints may take, None for the machine's share.

    `cards`: those that are handed to containers.
    """

    deployments: Deployments
    engine: Engine
    logs: Logs
    views: Views
    pushed: DirectUploads
    taken: Taken
    sessions: Sessions
    secrets: Secrets
    archive: Archive
    copies: Callable[[str], dict[str, int]]  # what became of those to an endpoint's shadow
    memory: int | None
    cards: Sequence[Card]

    def routes(self) -> list[BaseRoute]:
        bento_of = partial(bento_shown, self.pushed)
        made = DeploymentRoutes(self.deployments, self.taken, self.views.address, bento_of, self.sessions.name)
        gathering = Gathering(self.deployments, self.engine, self.views, self.archive, self.logs, self.copies)
        return [
            *WhoRoutes(self.sessions, self.memory, self.cards).routes(),
            *CloudTokenRoutes(self.sessions).routes(),
            *CloudSecretRoutes(self.secrets, self.sessions).routes(),
            *LoginRoutes(self.sessions).routes(),
            *BrowserLogin(self.sessions, self.sessions.clock).routes(),
            *DeploymentPages(gathering, self.sessions).routes(),
            *made.routes(),
            *PodRoutes(self.deployments, self.engine, self.logs).routes(),
            *repository_routes(self.pushed),
        ]
