"""BentoCloud's API as a whole: every route of it."""

from __future__ import annotations

from functools import partial

from starlette.routing import BaseRoute

from router.api.cloud.body import Taken
from router.api.cloud.deployments import DeploymentRoutes
from router.api.cloud.pods import PodRoutes
from router.api.cloud.repositories import bento_shown, repository_routes
from router.api.views import Views
from router.launch.logs import Logs
from router.shell.deployments import Deployments
from router.shell.direct import DirectUploads
from router.shell.engine import Engine


def cloud_routes(
    deployments: Deployments, engine: Engine, logs: Logs, views: Views, pushed: DirectUploads, taken: Taken
) -> list[BaseRoute]:
    made = DeploymentRoutes(deployments, taken, views.address, partial(bento_shown, pushed), lambda request: "")
    return [*made.routes(), *PodRoutes(deployments, engine, logs).routes(), *repository_routes(pushed)]
