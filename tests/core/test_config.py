"""Configuration: precedence, and all faults at once."""

from __future__ import annotations

from pathlib import Path

import pytest

from router.config import load, page, parse_settings
from router.core.settings import Settings
from torpor.errors import InvalidConfig

ROOT = Path(__file__).parents[2]


def test_a_flag_wins_over_the_environment_and_that_over_the_file(tmp_path: Path) -> None:
    file = tmp_path / "torpor.toml"
    file.write_text("port = 1\nmax_body = 5\n[settings]\nidle_after = 2\n")
    config = load(file, {"TORPOR_PORT": "2", "TORPOR_IDLE_AFTER": "3"}, {"port": 4})
    assert (config.port, config.max_body, config.settings.idle_after) == (4, 5, 3.0)


def test_all_faults_are_reported_at_once_with_place_value_and_bound(tmp_path: Path) -> None:
    file = tmp_path / "torpor.toml"
    file.write_text("prot = 1\n[settings]\nidle_after = -1\n")
    with pytest.raises(InvalidConfig) as raised:
        load(file, {"TORPOR_PORT": "many"}, {})
    message = raised.value.message
    assert "did you mean port" in message
    assert "settings.idle_after = -1 has to be from 0" in message
    assert "$TORPOR_PORT = 'many' has to be int" in message


def test_off_the_loopback_nobody_may_come_in_without_a_token() -> None:
    with pytest.raises(InvalidConfig, match=r"auth = 'off' .* where host = '0\.0\.0\.0' is no loopback address"):
        load(None, {}, {"host": "0.0.0.0", "auth": "off"})
    assert load(None, {}, {"host": "127.0.0.2", "auth": "off"}).auth == "off"
    assert load(None, {}, {"host": "0.0.0.0"}).auth == "auto"


@pytest.mark.parametrize("key", ["tls_cert", "tls_key"])
def test_half_a_pair_is_a_fault(key: str, tmp_path: Path) -> None:
    with pytest.raises(InvalidConfig, match="tls_cert and tls_key have to be set both, or neither"):
        load(None, {f"TORPOR_{key.upper()}": str(tmp_path)}, {})


def test_a_deploys_settings_stand_over_the_defaults() -> None:
    settings = parse_settings({"idle_after": 1, "port": 7412}, Settings(max_queue=3))
    assert (settings.idle_after, settings.port, settings.max_queue) == (1.0, 7412, 3)
    with pytest.raises(InvalidConfig, match="did you mean max_queue"):
        parse_settings({"max_queu": 1}, Settings())


def test_the_page_is_fresh() -> None:
    assert (ROOT / "docs" / "config.md").read_text() == page()


@pytest.mark.parametrize("url", ["collector:4318", "grpc://collector:4317", "http://", "http://c:4318/v1?x=1"])
def test_a_collector_that_is_no_url_of_http_is_a_fault(url: str) -> None:
    with pytest.raises(InvalidConfig, match=r"otlp_endpoint = .* has to be http"):
        load(None, {"TORPOR_OTLP_ENDPOINT": url}, {})


@pytest.mark.parametrize("url", ["http://127.0.0.1:4318", "https://collector/otlp", "http://c:4318/v1/traces"])
def test_a_collector_is_a_url(url: str) -> None:
    assert load(None, {"TORPOR_OTLP_ENDPOINT": url}, {}).otlp_endpoint == url
