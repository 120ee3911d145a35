import socket
import stat
from dataclasses import MISSING, fields
from pathlib import Path

import pytest

from tandem.cli.parser import Parser, load_config
from tandem.cli.plan import add_plan_options, free_address, make_plan
from tandem.cli.up import private_directory
from tandem.cli.up_config import UpConfig
from tandem.core.errors import ConfigError
from tandem.demo import DEMO_DRAFTER, DEMO_TARGET
from tandem.gateway.config import GatewayConfig
from tandem.verifier.config import VerifierConfig

RUN = Path("/run/x")


def plan(*argv):
    parser = Parser(prog="up")
    add_plan_options(parser)
    arguments = parser.parse_args(["--listen=127.0.0.1:0", *argv])
    return make_plan(arguments, load_config(UpConfig, arguments), RUN)


def settings_of(made, name):
    (service,) = [service for service in made.services if service.name == name]
    assert service.arguments[0] == name
    return dict(argument.removeprefix("--").split("=", 1) for argument in service.arguments[1:])


def test_the_demo_pair_is_the_default():
    made = plan()
    assert [service.name for service in made.services] == ["drafter", "verifier", "gateway"]
    verifier, drafter, gateway = (settings_of(made, name) for name in ("verifier", "drafter", "gateway"))
    assert verifier == {
        "target": str(DEMO_TARGET),
        "listen": "unix:/run/x/verifier.sock",
        "drafter": "unix:/run/x/drafter.sock",
        "exchange-directory": "/run/x",
    }
    assert drafter == {
        "draft-model": str(DEMO_DRAFTER),
        "target": str(DEMO_TARGET),
        "listen": "unix:/run/x/drafter.sock",
    }
    assert gateway == {
        "tokenizer": str(DEMO_TARGET),
        "listen": made.gateway,
        "verifier": "unix:/run/x/verifier.sock",
    }
    assert made.has_drafter and not made.gateway.endswith(":0")


def test_settings_reach_the_services_they_belong_to():
    made = plan("--num-speculative-tokens=7", "--threads=2", "--max-output-tokens=9", "--drain-seconds=3")
    assert settings_of(made, "verifier")["num-speculative-tokens"] == "7"
    assert settings_of(made, "drafter")["num-speculative-tokens"] == "7"
    assert settings_of(made, "verifier")["threads"] == "2"
    assert "threads" not in settings_of(made, "drafter")
    assert settings_of(made, "gateway")["max-output-tokens"] == "9"
    assert settings_of(made, "gateway")["drain-seconds"] == settings_of(made, "verifier")["drain-seconds"] == "3.0"


def test_without_a_gateway_the_verifier_is_what_listens():
    made = plan("--no-gateway", "--health-listen=127.0.0.1:8702")
    assert [service.name for service in made.services] == ["drafter", "verifier"]
    verifier = settings_of(made, "verifier")
    assert verifier["listen"] == made.gateway == made.verifier and not made.verifier.endswith(":0")
    assert verifier["health-listen"] == "127.0.0.1:8702"
    made = plan("--health-listen=127.0.0.1:8702")
    assert "health-listen" not in settings_of(made, "verifier") and "health-listen" in settings_of(made, "gateway")


def test_the_position_of_the_drafters_queries_reaches_whoever_drafts():
    made = plan("--draft-position=p-1")
    assert settings_of(made, "drafter")["draft-position"] == "p-1"
    assert settings_of(plan("--draft-position=p-1", "--drafter=inprocess"), "verifier")["draft-position"] == "p-1"
    with pytest.raises(ConfigError, match="--draft-position must be one of p, p-1, not 'q'"):
        plan("--draft-position=q")


def test_the_drafter_is_on_the_targets_device_unless_told_otherwise():
    made = plan("--device=cuda")
    assert settings_of(made, "verifier")["device"] == settings_of(made, "drafter")["device"] == "cuda"
    made = plan("--device=cuda", "--drafter-device=cuda:1")
    assert settings_of(made, "verifier")["device"] == "cuda"
    assert settings_of(made, "drafter")["device"] == "cuda:1"


def test_the_environment_reaches_only_whom_it_should(monkeypatch):
    monkeypatch.setenv("TANDEM_THREADS", "3")
    monkeypatch.setenv("TANDEM_VERIFIER", "unix:/elsewhere")
    monkeypatch.setenv("TANDEM_LOG_LEVEL", "debug")
    made = plan()
    assert settings_of(made, "verifier")["threads"] == "3"
    assert "threads" not in settings_of(made, "drafter")
    assert settings_of(made, "gateway")["verifier"] == "unix:/run/x/verifier.sock"
    assert settings_of(made, "drafter")["log-level"] == settings_of(made, "gateway")["log-level"] == "debug"


def test_drafts_in_the_verifier():
    made = plan("--drafter=inprocess")
    assert [service.name for service in made.services] == ["verifier", "gateway"]
    assert settings_of(made, "verifier")["drafter"] == "inprocess"
    assert settings_of(made, "verifier")["draft-model"] == str(DEMO_DRAFTER)
    assert made.has_drafter


def test_no_drafts():
    made = plan("--drafter=none", "--target=/models/x")
    assert [service.name for service in made.services] == ["verifier", "gateway"]
    assert settings_of(made, "verifier")["drafter"] == "none"
    assert not made.has_drafter


def test_a_lookup_drafter_beside_the_other_and_alone():
    beside, alone = plan("--lookup"), plan("--lookup", "--drafter=none", "--num-speculative-tokens=5")
    assert [service.name for service in beside.services] == ["lookup-drafter", "drafter", "verifier", "gateway"]
    assert [service.name for service in alone.services] == ["lookup-drafter", "verifier", "gateway"]
    assert beside.has_drafter and alone.has_drafter
    assert settings_of(alone, "lookup-drafter") == {
        "listen": "unix:/run/x/lookup.sock",
        "num-speculative-tokens": "5",
    }
    assert settings_of(alone, "verifier")["lookup-drafter"] == "unix:/run/x/lookup.sock"
    assert settings_of(alone, "verifier")["drafter"] == "none"
    assert settings_of(beside, "verifier")["drafter"] == "unix:/run/x/drafter.sock"
    assert "lookup-drafter" not in settings_of(plan(), "verifier")


def test_ones_own_target_needs_a_word_on_its_drafter():
    with pytest.raises(ConfigError, match="--draft-model is required"):
        plan("--target=/models/x")
    made = plan("--target=/models/x", "--draft-model=/models/y")
    assert settings_of(made, "drafter")["draft-model"] == "/models/y"


def test_bad_settings_are_found_before_anything_starts():
    with pytest.raises(ConfigError, match="--kv-tokens must be at least 1"):
        plan("--kv-tokens=0")


def test_every_setting_of_gateway_and_verifier_is_offered_or_decided():
    parser = Parser(prog="up")
    add_plan_options(parser)
    offered = parser.format_help()
    decided = {"tokenizer", "verifier", "lookup_drafter"}
    for config in (UpConfig, GatewayConfig, VerifierConfig):
        for declared in fields(config):
            assert declared.name in decided or f"--{declared.name.replace('_', '-')} " in offered
            assert declared.default is MISSING or declared.metadata["help"]


def test_a_free_port_is_chosen_once():
    host, _, port = free_address("127.0.0.1:0").rpartition(":")
    assert host == "127.0.0.1" and 0 < int(port) < 65536


def test_a_taken_address_is_refused(tmp_path):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        with pytest.raises(ConfigError, match="Address already in use"):
            free_address(f"127.0.0.1:{taken.getsockname()[1]}")
    with socket.socket(socket.AF_UNIX) as taken:
        taken.bind(str(tmp_path / "s"))
        taken.listen()
        with pytest.raises(ConfigError, match="another process"):
            free_address(f"unix:{tmp_path}/s")
    assert free_address(f"unix:{tmp_path}/s")


@pytest.mark.parametrize(
    "address", ["nowhere", "127.0.0.1", "127.0.0.1:x", "127.0.0.1:99999", ":", "no.such.host.invalid:1"]
)
def test_addresses_that_are_none(address):
    with pytest.raises(ConfigError, match="cannot listen on"):
        free_address(address)


@pytest.mark.parametrize(("listen", "local"), [("0.0.0.0", "127.0.0.1"), ("127.0.0.1", "127.0.0.1")])
def test_clients_on_this_machine_are_told_an_address_they_can_call(listen, local):
    made = plan(f"--listen={listen}:0")
    assert made.gateway.rpartition(":")[0] == local
    assert settings_of(made, "gateway")["listen"].rpartition(":")[0] == listen


def test_the_run_directory_is_private_and_goes(tmp_path):
    with private_directory(str(tmp_path)) as path:
        assert stat.S_IMODE(path.stat().st_mode) == 0o700 and path.parent == tmp_path
        (path / "left").touch()
    assert not path.exists()
    with pytest.raises(ConfigError, match="--exchange-directory /nowhere"), private_directory("/nowhere"):
        pass
