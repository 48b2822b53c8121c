"""What a deployment's body, as the bentoml command line sends it, makes of a service's settings."""

from __future__ import annotations

from typing import Any

import pytest

from router.api.cloud.body import Taken, read_body
from router.core.settings import Settings
from torpor.errors import BadRequest, InvalidConfig


def settings_of(overrides: dict[str, Any]) -> Settings:
    service = {"config_overrides": overrides}
    body = {"bento": "embedding:a", "services": {"embedding": service}}
    return read_body(body, "embedder", Taken(Settings()), "").settings


def test_torpors_settings_have_a_part_of_their_own_in_a_services_configuration() -> None:
    own = {"launcher": "container", "sleep": "pause", "egress": True, "memory_limit": 1 << 30}
    settings = settings_of({"traffic": {"concurrency": 4}, "torpor": own})
    assert {name: getattr(settings, name) for name in own} == own
    assert settings.concurrency == 4


@pytest.mark.parametrize(
    ("own", "error", "says"),
    [
        ("container", BadRequest, "config_overrides.torpor is 'container'"),
        ({"launche": "container"}, InvalidConfig, "did you mean launcher"),
        ({"sleep": "pause"}, InvalidConfig, "has to be one of auto, deep, stop, template where launcher is process"),
    ],
)
def test_what_is_no_setting_of_torpors_is_refused(own: Any, error: type[Exception], says: str) -> None:
    with pytest.raises(error, match=says):
        settings_of({"torpor": own})
