"""A platform that sends its spans to a collector: each call with its phases, in the trace of its caller."""

from __future__ import annotations

from pathlib import Path

import httpx

from tests.collector import attributes, collecting, seconds
from tests.system import handmade
from tests.system.running import Running, free_port, running

SERVICE = """
import bentoml
from collections.abc import Iterator

@bentoml.service
class Seen:
    @bentoml.api
    def parent(self, ctx: bentoml.Context) -> str:
        return ctx.request.headers.get("traceparent", "")

    @bentoml.api
    def two(self) -> Iterator[str]:
        yield "one "
        yield "two"
"""
TRACE, PARENT = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
CALLER = {"traceparent": f"00-{TRACE}-{PARENT}-01"}


def configured(folder: Path, collector: str) -> list[str]:
    file = folder / "torpor.toml"
    file.write_text(f'otlp_endpoint = "{collector}"\n')
    return ["--config", str(file)]


def deployed(platform: Running) -> httpx.Client:
    handmade.upload(platform.url, "seen", handmade.bento("seen", SERVICE, "service:Seen"))
    handmade.deployed(platform.url, "seen", "seen:1", sleep="deep")
    return httpx.Client(base_url=f"{platform.url}/endpoints/seen", timeout=60)


def test_a_cold_call_and_a_warm_one_are_seen_with_their_phases_and_the_replica_is_below(tmp_path: Path) -> None:
    with collecting() as collector:
        with running(tmp_path, *configured(tmp_path, collector.url)) as platform, deployed(platform) as http:
            platform.told("sleep", "seen")
            sent = [http.post("/parent", json={}, headers=CALLER).text for _ in range(2)]
            assert http.post("/two", json={}).text == "one two"
        cold, warm, stream = collector.server()
    assert [span.trace_id.hex() for span in (cold, warm)] == [TRACE, TRACE]
    assert [span.parent_span_id.hex() for span in (cold, warm, stream)] == [PARENT, PARENT, ""]
    assert sent == [f"00-{TRACE}-{span.span_id.hex()}-01" for span in (cold, warm)]
    told = attributes(cold)
    assert (told["torpor.endpoint"], told["torpor.cold"], told["http.response.status_code"]) == ("seen", True, 200)
    assert attributes(warm)["torpor.cold"] is False
    park = collector.below(cold)["park"]
    assert 0 < seconds(park) <= seconds(cold)
    assert {"fork", "import", "load"} <= collector.below(collector.below(park)["start"]).keys()
    assert collector.below(warm).keys() == {"infer"}
    assert seconds(collector.below(warm)["infer"]) <= seconds(warm)
    assert collector.resource["service.name"] == "torpor"


def test_a_platform_whose_collector_is_down_answers_and_ends_as_ever(tmp_path: Path) -> None:
    down = f"http://127.0.0.1:{free_port()}"
    with running(tmp_path, *configured(tmp_path, down)) as platform, deployed(platform) as http:
        answers = [http.post("/parent", json={}, headers=CALLER) for _ in range(20)]
        assert {answer.status_code for answer in answers} == {200}
    assert not (tmp_path / "data" / "torpor.json").exists(), "it was told to end, and has"
