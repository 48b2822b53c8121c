"""The collector that gets the router's spans, where one is named: without one nothing of OpenTelemetry is imported."""

from __future__ import annotations

from typing import TYPE_CHECKING

from torpor.errors import InvalidConfig

if TYPE_CHECKING:
    from router.shell.traces import OtlpTraces


def traces_of(url: str | None) -> OtlpTraces | None:
    """Raises InvalidConfig where the extra is not installed."""
    if url is None:
        return None
    try:
        from router.shell.traces import OtlpTraces
    except ModuleNotFoundError as error:
        raise InvalidConfig(
            f"otlp_endpoint needs the package {error.name}, which is not installed\n"
            "install it: pip install 'torpor[otel]', or leave otlp_endpoint out"
        ) from None
    return OtlpTraces(url)
