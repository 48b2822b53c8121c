"""The pages of deployments, of a real platform: what they tell, what they keep, who may read them, and in a browser."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import httpx
import pytest
from PIL import Image

from tests.system import handmade
from tests.system.browser import browser, dumped
from tests.system.paged import (
    API,
    BROKEN,
    MARK,
    SAID,
    SERVICE,
    commands,
    deploy,
    ran,
    shown,
    under_way,
    words,
)
from tests.system.running import Running, running
from tests.system.test_control_plane import OTHERS, PATIENCE, until


@pytest.fixture(scope="module")
def platform(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    """A deployment that is live with a canary, `staging` and a shadow; one that failed; one that is terminated."""
    with running(tmp_path_factory.mktemp("pages")) as started:
        for name, text, kind in (
            ("speaker", SERVICE, "Speaker"),
            ("broken", BROKEN, "Broken"),
            ("slow", OTHERS, "Slow"),
        ):
            handmade.upload(started.url, name, handmade.bento(name, text, f"service:{kind}"))
        deploy(started, "plain", "speaker:1")
        body = {"envs": [{"name": "PASSWORD", "value": "sesame"}, {"name": MARK, "value": "1"}]}
        canary = {"route_type": "random", "versions": {"next": {"bento": "speaker:1", "weight": 20, "services": {}}}}
        deploy(started, "speaker", "speaker:1", canary=canary, **body)
        staging = {"name": "speaker", "bento": "speaker:1", "variant": "staging"}
        assert list(handmade.events(started.url, staging))[-1]["event"] == "deployed"
        shadow = {"name": "speaker", "bento": "speaker:1", "variant": "dark", "rule": {"kind": "shadow", "weight": 100}}
        assert list(handmade.events(started.url, shadow))[-1]["event"] == "deployed"
        deploy(started, "sad", "broken:1")
        deploy(started, "gone", "speaker:1")
        httpx.post(f"{started.url}{API}/gone/terminate", timeout=PATIENCE).raise_for_status()
        yield started


def test_a_page_tells_state_address_revisions_events_and_log(platform: Running) -> None:
    port = httpx.get(f"{platform.url}/torpor/v1/endpoints/speaker").json()["settings"]["port"]
    page = shown(platform, "/deployments/speaker")
    assert page.status_code == 200
    read = words(page)
    for expected in (
        "speaker awake 1 replica ready to answer.",
        f"http://127.0.0.1:{port}",
        "Live revision 1 Bento speaker:1 Replicas 1 (0 to 1)",
        "next awake 20 percent of the calls 2 0 speaker:1",
        "staging awake calls to its own address 3 0 speaker:1",
        "1 live, 80 %",
        "2 next, 20 %",
        "dark awake copies of 100 percent of the calls 4 0 speaker:1",
        "Copies for the shadow: 0 copied, 0 same, 0 different, 0 failed, 0 dropped.",
        "4 dark in the shadow, 100 %",
        "deployed revision 1 is live",
        "Service loaded from Bento directory",
        "Variables (values are not shown) <script>alert(1)</script> , PASSWORD",
    ):
        assert expected in read, read
    until(lambda: "MiB Template" in words(shown(platform, "/deployments/speaker")))  # it is measured now and then
    assert read.index("revision 3 is beside the live one") < read.index("revision 1 is live"), "the newest first"


def test_a_failed_first_deploy_shows_why_and_a_terminated_one_how_it_comes_back(platform: Running) -> None:
    sad = words(shown(platform, "/deployments/sad"))
    assert "sad failed No deploy of it has succeeded yet. The last deploy failed a replica of 'sad' could not" in sad
    assert "No revision of it is live." in sad
    gone = words(shown(platform, "/deployments/gone"))
    assert "gone terminated It is off the air, and kept: torpor start gone puts it back." in gone
    assert "curl" not in gone


def test_a_failed_update_is_shown_beside_the_revision_that_goes_on_serving(platform: Running) -> None:
    deploy(platform, "hopeful", "speaker:1")
    body = {"bento": "broken:1", "services": {}}
    httpx.put(f"{platform.url}{API}/hopeful", json=body, timeout=PATIENCE).raise_for_status()
    read = words(shown(platform, "/deployments/hopeful"))
    assert "hopeful awake" in read
    assert "The last deploy failed Revision 1 goes on serving. a replica of 'hopeful' could not start" in read
    assert "hopeful awake last deploy failed speaker:1 1" in words(shown(platform, "/deployments"))
    httpx.delete(f"{platform.url}{API}/hopeful", timeout=PATIENCE).raise_for_status()


def test_the_list_names_every_deployment_and_goes_on_where_it_is_asked_to(platform: Running) -> None:
    page = shown(platform, "/deployments")
    assert re.findall(r'href="/deployments/([a-z]+)"', page.text) == ["gone", "sad", "speaker", "plain"]
    assert "plain awake speaker:1 1 0 never" in words(page)
    rest = shown(platform, "/deployments?start=3")
    assert re.findall(r'href="/deployments/([a-z]+)"', rest.text) == ["plain"]
    assert "Younger ones" in words(rest)
    assert "none from number 9 on" in words(shown(platform, "/deployments?start=9"))
    assert shown(platform, "/deployments?start=many").status_code == 400
    assert shown(platform, "/deployments/").status_code == 200


def test_what_services_and_deployers_wrote_is_text(platform: Running) -> None:
    for path in ("/deployments/speaker", "/deployments/sad"):
        page = shown(platform, path)
        assert MARK not in page.text
        assert SAID in page.text
    log = shown(platform, "/deployments/speaker").text
    assert f"{SAID} red \N{REPLACEMENT CHARACTER}back" in log, "colours are gone, what turns the text is seen"
    missing = shown(platform, "/deployments/%3Cscript%3Ealert(1)%3C%2Fscript%3E")
    assert (missing.status_code, MARK in missing.text, SAID in missing.text) == (404, False, True)


def test_no_page_has_a_variable_s_value(platform: Running) -> None:
    assert "sesame" not in shown(platform, "/deployments/speaker").text
    assert "sesame" not in shown(platform, "/deployments").text


def test_each_command_that_a_page_shows_calls_its_method(platform: Running, tmp_path: Path) -> None:
    Image.new("RGB", (7, 5)).save(tmp_path / "file.png")
    (tmp_path / "file.bin").write_bytes(b"some bytes")
    found = commands(shown(platform, "/deployments/plain"))
    answers = {method: ran(command, tmp_path) for method, command in found.items()}
    assert json.loads(answers.pop("matrix")) == [[1.0] * 3] * 2
    assert answers.pop("later").startswith('{"task_id":')
    assert answers == {
        "add": "1.0",
        "item": "1 it's $HOME",
        "root": "1 it's $HOME",
        "text": "hello",
        "picture": "7",
        "whole": "7",
        "file": "",
        "nothing": "done",
    }
    assert (tmp_path / "answer.bin").read_bytes() == b"some bytes"


def test_the_commands_of_an_endpoint_that_asks_for_a_token_itself_send_one(platform: Running) -> None:
    deploy(platform, "guarded", "speaker:1", access_authorization=True)
    page = shown(platform, "/deployments/guarded")
    assert "Callers need a token yes" in words(page)
    assert all('-H "Authorization: Bearer $TORPOR_TOKEN"' in command for command in commands(page).values())
    assert "Callers need a token no" in words(shown(platform, "/deployments/plain"))
    httpx.delete(f"{platform.url}{API}/guarded", timeout=PATIENCE).raise_for_status()


def test_a_page_runs_nothing_but_its_own_script_and_loads_nothing(platform: Running) -> None:
    numbers = set()
    for path in ("/deployments", "/deployments/speaker", "/deployments/none", "/login"):
        page = shown(platform, path)
        policy = page.headers["content-security-policy"]
        [nonce] = set(re.findall(r"'nonce-([\w-]+)'", policy))
        numbers.add(nonce)
        assert "default-src 'none'; " in policy
        assert "unsafe" not in policy
        assert set(re.findall(r"<(?:script|style)\b[^>]*>", page.text)) <= {
            f'<script nonce="{nonce}">',
            f'<style nonce="{nonce}">',
        }
        assert not re.findall(r"""\s(?:style|src|srcset|on\w+)=["']""", page.text)
        assert re.findall(r'<link [^>]*href="([^"]{5})', page.text) == ["data:"]
        assert (page.headers["cache-control"], page.headers["x-content-type-options"]) == ("no-store", "nosniff")
    assert len(numbers) == 4, "drawn anew for each answer"


def test_head_tells_what_get_would_without_a_body(platform: Running) -> None:
    for path, status in (("/deployments", 200), ("/deployments/speaker", 200), ("/deployments/none", 404)):
        told = httpx.head(platform.url + path)
        assert (told.status_code, told.content) == (status, b"")
        assert told.headers["content-type"] == "text/html; charset=utf-8"


def test_a_page_only_reads(platform: Running) -> None:
    for path in ("/deployments", "/deployments/speaker"):
        assert "<form" not in shown(platform, path).text
        for method in ("POST", "PUT", "PATCH", "DELETE"):
            assert httpx.request(method, platform.url + path).status_code == 405


def test_a_browser_is_led_from_the_front_to_the_list_and_a_program_is_told_what_there_is(platform: Running) -> None:
    led = httpx.get(platform.url, headers={"Accept": "text/html,application/xhtml+xml,*/*;q=0.8"})
    assert (led.status_code, led.headers["location"]) == (303, "/deployments")
    told = httpx.get(platform.url)
    assert (told.json()["endpoints"], told.headers["vary"]) == (["plain", "speaker"], "Accept")


def test_only_a_page_of_what_is_under_way_fetches_itself_again_without_a_script(platform: Running) -> None:
    again = '<noscript><meta http-equiv="refresh"'
    assert again not in shown(platform, "/deployments/gone").text
    with under_way(platform, "late"):
        page = shown(platform, "/deployments/late")
        assert again in page.text
        assert "late deploying A revision of slow:1 is being made ready." in words(page)
        assert again in shown(platform, "/deployments").text


def test_who_has_no_session_logs_in_and_comes_back(tmp_path: Path) -> None:
    with running(tmp_path) as platform:
        handmade.upload(platform.url, "speaker", handmade.bento("speaker", SERVICE, "service:Speaker"))
        handmade.deployed(platform.url, "speaker", "speaker:1")
        boss = platform.told("tokens", "create", "boss", "--scope", "admin").strip()
        asked_for = replace(platform, env=platform.env | {"TORPOR_TOKEN": boss})
        reader = asked_for.told("tokens", "create", "reader", "--scope", "read_cluster").strip()
        caller = asked_for.told("tokens", "create", "caller", "--scope", "call").strip()
        with httpx.Client(base_url=platform.url, timeout=PATIENCE) as http:
            asked = http.get("/deployments/speaker?x=1")
            assert (asked.status_code, "speaker:1" in asked.text) == (303, False)
            where = urlsplit(asked.headers["location"])
            assert (where.path, parse_qs(where.query)) == ("/login", {"next": ["/deployments/speaker?x=1"]})
            assert http.get("/deployments/none").status_code == 303, "what is not there is not told either"
            assert "<form" in http.get(asked.headers["location"]).text
            wrong = log_in(http, "tp_" + "x" * 43)
            assert (wrong.status_code, "set-cookie" in wrong.headers) == (401, False)
            back = log_in(http, reader)
            assert (back.status_code, back.headers["location"]) == (303, "/deployments/speaker?x=1")
            page = http.get("/deployments/speaker?x=1")
            assert page.status_code == 200
            assert "reader Log out" in words(page)
            command = commands(page)["add"]
            assert '-H "Authorization: Bearer $TORPOR_TOKEN"' in command
            assert ran(command, tmp_path, TORPOR_TOKEN=caller) == "1.0"
            http.post("/logout", headers={"Origin": platform.url})
            assert http.get("/deployments").status_code == 303
            log_in(http, caller)
            refused = http.get("/deployments")
            assert refused.status_code == 403
            assert "needs read_cluster, api or admin" in words(refused)
        assert httpx.get(platform.url).status_code == 401
        assert httpx.get(platform.url, headers={"Authorization": f"Bearer {caller}"}).status_code == 403
        told = httpx.get(platform.url, headers={"Authorization": f"Bearer {boss}"})
        assert told.json()["endpoints"] == ["speaker"]
        assert httpx.get(platform.url, headers={"Accept": "text/html"}).headers["location"] == "/deployments"


def log_in(http: httpx.Client, token: str) -> httpx.Response:
    form = {"token": token, "next": "/deployments/speaker?x=1"}
    return http.post("/login", data=form, headers={"Origin": str(http.base_url).rstrip("/")})


def test_a_browser_shows_the_state_and_complains_of_nothing(platform: Running) -> None:
    page, console = dumped(f"{platform.url}/deployments/speaker")
    assert "speaker awake 1 replica ready to answer." in words(page)
    assert '<html lang="en" class="scripted">' in page, "its script has run"
    assert console == ""


def test_a_page_in_a_browser_follows_what_is_under_way_and_keeps_what_its_reader_does(platform: Running) -> None:
    with browser() as page:
        with under_way(platform, "followed"):
            page.show(f"{platform.url}/deployments/followed")
            assert page.ask("document.querySelector('#state .pill').textContent") == "deploying"
            page.ask("window.same = true; document.querySelector('#told').focus(); 0")
            httpx.post(f"{platform.url}{API}/followed/terminate", timeout=PATIENCE).raise_for_status()
            page.until("document.querySelector('#state .pill').textContent === 'terminated'")
            assert page.ask("window.same"), "it was not loaded anew"
            assert page.ask("document.title") == "followed: terminated · torpor"
            assert page.ask("document.activeElement.id") == "told"
        assert page.complaints == []


def test_no_page_is_wider_than_a_phone_and_each_scheme_has_colours_of_its_own(
    platform: Running, tmp_path: Path
) -> None:
    grounds = set()
    with browser() as page:
        for path in ("/deployments", "/deployments/speaker", "/deployments/sad", "/login"):
            for scheme in ("light", "dark"):
                page.show(platform.url + path, width=390, scheme=scheme)
                assert page.ask("document.documentElement.scrollWidth") == 390, path
                page.picture(tmp_path / "shown.png")
                with Image.open(tmp_path / "shown.png") as picture:
                    grounds.add((scheme, picture.convert("RGB").getpixel((2, 2))))
        assert page.complaints == []
    assert grounds == {("light", (0xF6, 0xF6, 0xF9)), ("dark", (0x12, 0x12, 0x19))}


def test_the_button_copies_the_command_as_it_is_shown(platform: Running) -> None:
    with browser() as page:
        page.call("Browser.grantPermissions", permissions=["clipboardReadWrite", "clipboardSanitizedWrite"])
        page.show(f"{platform.url}/deployments/plain")
        page.ask("document.querySelector('#call-copy').click(); 0")
        page.until("document.querySelector('#said').textContent === 'The command is copied.'")
        shown_command = page.ask("document.querySelector('#call').textContent")
        assert shown_command == commands(shown(platform, "/deployments/plain"))["add"]
        assert page.ask("navigator.clipboard.readText()") == shown_command
        assert page.complaints == []
