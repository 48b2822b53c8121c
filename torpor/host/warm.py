"""What BentoML does anew in every worker and what comes out the same each time: done once, before the fork.

Measured on BentoML 1.4.39 with the embedding service: of 36 ms to load it, 30 go into its default configuration, which
is read from YAML and checked against a schema, and then checked a second time with the service's own part.
"""

from __future__ import annotations

import copy
import functools
from typing import Any

import yaml
from _bentoml_sdk.io_models import IOMixin
from _bentoml_sdk.method import APIMethod
from bentoml._internal.configuration import containers, helpers
from bentoml._internal.log import configure_server_logging

from torpor.host import figures

VERSIONS = (1, 2)  # of BentoML's configuration: of runners, of services
LOG_LEVELS = ("BENTOML_DEBUG", "BENTOML_QUIET", "BENTOML_VERBOSITY")  # environment that `configure_logging` reads


def before_fork() -> None:
    """Called once in the fork-server."""
    defaults = {version: helpers.get_default_config(version) for version in VERSIONS}

    def default_config(version: int) -> dict[str, Any]:
        return copy.deepcopy(defaults[version])

    containers.get_default_config = default_config
    if yaml.__with_libyaml__:  # the same parser in C: a model's card takes 1 ms with it, and 10 without
        yaml.safe_load = functools.partial(yaml.load, Loader=yaml.CSafeLoader)
    configure_server_logging()  # type: ignore[no-untyped-call]  # BentoML's
    mime_type: Any = functools.cache(IOMixin.mime_type.__func__)
    IOMixin.mime_type = classmethod(mime_type)  # else a JSON schema is made at every answer
    APIMethod._local_call = local_call(APIMethod._local_call)
    figures.install()


def local_call(make: Any) -> Any:
    """BentoML's `_local_call`, which reads the method's signature at every call; here once for each instance."""

    @functools.wraps(make)
    def kept(method: Any, instance: Any) -> Any:
        made: dict[str, Any] = instance.__dict__.setdefault("__torpor_local_calls__", {})
        if method.name not in made:
            made[method.name] = make(method, instance)
        return made[method.name]

    return kept


def trust_configuration() -> None:
    """In a replica whose revision has started before: its configuration was found valid then."""
    trusting = functools.partial(containers.BentoMLConfiguration, validate_schema=False)
    setattr(containers, "BentoMLConfiguration", trusting)  # noqa: B010 - a class by name, which a type checker refuses
