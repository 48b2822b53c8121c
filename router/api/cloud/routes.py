"""BentoCloud's API as a whole: every route of it."""

from __future__ import annotations

from starlette.routing import BaseRoute

from router.api.cloud.body import Taken
from router.api.cloud.deployments import DeploymentRoutes
from router.api.cloud.pods import PodRoutes
from router.api.views import Views
from router.bentos import Bentos
from router.launch.logs import Logs
from router.shell.deployments import Deployments
from router.shell.engine import Engine


def cloud_routes(
    deployments: Deployments, engine: Engine, logs: Logs, views: Views, bentos: Bentos, taken: Taken
) -> list[BaseRoute]:
    made = DeploymentRoutes(deployments, taken, views.address, lambda tag: None, lambda request: "")
    return [*made.routes(), *PodRoutes(deployments, engine, logs).routes()]
