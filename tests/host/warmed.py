"""Prints, as JSON, what `torpor.host.warm` leaves and what there would be without it. Run in a process of its own."""

from __future__ import annotations

import json
import sys
from typing import Any

import bentoml
import yaml
from bentoml._internal.configuration import containers, helpers
from bentoml._internal.configuration.containers import BentoMLContainer

from torpor.host import warm
from torpor.host.service import open_early

TEXTS = ("a: [1, 2.5, true, null, '2026-01-01']\nb: &x {c: d}\ne: *x\n", "- 2026-01-01\n", "", 'é: "\\u00e9"\n')
WRONG = ("a: [", "!!python/object/apply:os.getcwd []\n")


@bentoml.service(traffic={"timeout": 7, "max_concurrency": 3}, threads=2, http={"cors": {"enabled": False}})
class Subject:
    pass


@bentoml.service(traffic={"timeout": -1})
class Wrong:
    pass


def configured(service: Any) -> Any:
    service.inject_config()
    return json.loads(json.dumps(BentoMLContainer.config.get(), default=str))


def refused(service: Any) -> bool:
    try:
        service.inject_config()
    except bentoml.exceptions.BentoMLConfigException:
        return True
    return False


def read() -> list[str]:
    out = [repr(yaml.safe_load(text)) for text in TEXTS]
    for text in WRONG:
        try:
            out.append(repr(yaml.safe_load(text)))
        except yaml.YAMLError as error:
            out.append(type(error).__name__)
    return out


def facts() -> dict[str, Any]:
    """Config and YAML as they are now."""
    return {
        "defaults": [repr(containers.get_default_config(version)) for version in warm.VERSIONS],
        "service": configured(Subject),
        "yaml": read(),
    }


def unread(version: int) -> dict[str, Any]:
    """Stands where the defaults were read from their file."""
    raise AssertionError(f"the defaults of version {version} are read again")


def main() -> None:
    open_early(())
    out: dict[str, Any] = {"plain": facts()}
    warm.before_fork()
    helpers.get_default_config = unread
    out["warm"] = facts()
    containers.get_default_config(2)["services"] = "changed by its user"
    out["again"] = facts()
    out["checked"] = refused(Wrong)
    warm.trust_configuration()
    out["trusted"] = facts()
    out["checked when trusted"] = refused(Wrong)
    out["onnx"] = "torpor.onnx" in sys.modules
    print(json.dumps(out))


if __name__ == "__main__":
    main()
