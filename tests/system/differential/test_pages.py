"""Pages, schemas and health. Torpor answers health, metrics and schema itself: the differences that this makes."""

from __future__ import annotations

import json

import pytest

from tests.system.differential.pair import SERVICES, Pair

PLAIN = [name for name in SERVICES if name != "mounted"]  # without middleware
FREE = [name for name in SERVICES if name != "narrow"]  # one call at a time: a file's slot is free a moment late


@pytest.mark.parametrize("service", FREE)
def test_the_index_page_and_its_files_are_bentomls(pair: Pair, service: str) -> None:
    assert b"swagger" in pair.both(200, service, "GET", "/").body
    pair.both(200, service, "HEAD", "/")
    assert pair.both(200, service, "GET", "/static_content/index.css").header("content-type") == (
        "text/css; charset=utf-8"
    )
    pair.both(404, service, "GET", "/static_content/none.css")


@pytest.mark.parametrize("service", FREE)
def test_the_openapi_document_is_the_same(pair: Pair, service: str) -> None:
    assert json.loads(pair.both(200, service, "GET", "/docs.json").body)["openapi"]


def test_a_bento_with_arguments_has_its_version_in_the_openapi_document(pair: Pair) -> None:
    """Stock serves the folder here, which has no version: `bentoml serve` of the bento says the same as torpor."""
    stock, torpor = (answer.json() for answer in pair.each("narrow", "GET", "/docs.json"))
    assert torpor["info"].pop("version") == pair.client.get("narrow")["bento"].partition(":")[2]
    assert stock["info"].pop("version") == "None"
    assert torpor == stock


@pytest.mark.parametrize("service", [name for name in PLAIN if name != "hurried"])
@pytest.mark.parametrize("path", ["/livez", "/healthz", "/readyz", "/schema.json"])
def test_health_and_schema_are_the_same_while_a_service_is_well(pair: Pair, service: str, path: str) -> None:
    pair.both(200, service, "GET", path)
    pair.both(200, service, "HEAD", path)
    pair.both(405, service, "POST", path)


def test_health_is_under_a_services_prefix_and_its_schema_is_not(pair: Pair) -> None:
    for path in ("/livez", "/healthz", "/readyz"):
        pair.both(200, "hurried", "GET", path)  # /v9/...
    pair.both(404, "hurried", "GET", "/schema.json")
    stock, torpor = (pair.http.get(urls["hurried"] + "/schema.json") for urls in pair.sides.values())
    assert stock.status_code == 200
    assert torpor.json() == stock.json()
    assert {route["route"].partition("/")[2].partition("/")[0] for route in torpor.json()["routes"]} == {"v9"}


def test_no_read_wakes_a_replica_and_a_sleeping_endpoint_is_healthy(pair: Pair) -> None:
    """The difference that is meant: these are answered from what is known, also when nothing runs."""
    for service, prefix in (("hurried", "/v9"), ("narrow", "")):
        pair.client.sleep(service, force=True)
        for path in (f"{prefix}/livez", f"{prefix}/healthz", f"{prefix}/readyz", f"{prefix}/metrics", "/schema.json"):
            assert pair.http.get(pair.sides["torpor"][service] + path).status_code == 200, path
        assert pair.client.get(service)["state"] == "asleep"


def test_what_follows_from_answering_health_without_the_replica(pair: Pair) -> None:
    """A service that calls itself dead, and the paths without a service's prefix, are 200."""
    pair.call(200, "narrow", "set_alive", alive=False)
    stock, torpor = pair.each("narrow", "GET", "/livez")
    assert (stock.status_code, torpor.status_code) == (503, 200)
    pair.call(200, "narrow", "set_alive", alive=True)
    pair.both(200, "narrow", "GET", "/livez")
    outside = [pair.http.get(urls["hurried"] + "/livez").status_code for urls in pair.sides.values()]
    assert outside == [404, 200]


def test_what_a_middleware_adds_is_not_on_answers_that_never_reach_it(pair: Pair) -> None:
    stock, torpor = pair.each("mounted", "GET", "/livez")
    assert (stock.status_code, stock.content) == (torpor.status_code, torpor.content) == (200, b"\n")
    assert (stock.headers.get("x-stamp"), torpor.headers.get("x-stamp")) == ("stamped", None)
    schemas = pair.each("mounted", "GET", "/schema.json")
    assert schemas[0].json() == schemas[1].json()


def test_metrics_are_the_endpoints_and_not_the_replicas(pair: Pair) -> None:
    """An endpoint's counts survive its replicas; those that BentoML keeps would begin anew at each start."""
    stock, torpor = pair.each("files", "GET", "/metrics")
    assert (stock.status_code, torpor.status_code) == (200, 200)
    assert torpor.headers["content-type"].startswith("text/plain; version=")
    assert "bentoml_service_request_total" in stock.text
    assert 'torpor_cold_starts_total{endpoint="files"}' in torpor.text


@pytest.mark.parametrize(
    ("status", "method", "path"),
    [
        (404, "POST", "/none"),
        (404, "GET", "/none"),
        (404, "POST", "/routed"),  # its route is another
        (404, "POST", "//add"),
        (404, "POST", "/add/x"),
        (307, "POST", "/add/"),
        (307, "GET", "/livez/"),
        (405, "GET", "/add"),
        (405, "HEAD", "/add"),
        (405, "OPTIONS", "/add"),
        (405, "PUT", "/add"),
        (405, "DELETE", "/add"),
        (405, "PATCH", "/add"),
    ],
)
def test_routes_and_verbs_that_are_not_there_are_refused_alike(pair: Pair, status: int, method: str, path: str) -> None:
    answer = pair.both(status, "wide", method, path)
    if status == 405:
        assert answer.header("allow") == "POST"


def test_a_path_is_the_same_however_it_is_written(pair: Pair) -> None:
    assert pair.both(200, "wide", "POST", "/%61dd", json={"a": 1}).body == b"3"
    assert pair.both(200, "wide", "POST", "/add?x=1&y", json={"a": 1}).body == b"3"


def test_a_path_prefix_is_part_of_every_route(pair: Pair) -> None:
    assert pair.call(200, "hurried", "mood").body == b"calm"
    pair.both(307, "hurried", "GET", "")
    pair.both(405, "hurried", "GET", "/mood")
    outside = [pair.http.post(urls["hurried"] + "/mood", json={}).status_code for urls in pair.sides.values()]
    assert outside == [404, 404]
