"""The three services of one machine as `tandem up` starts them: who listens where, and which settings go to whom."""

import argparse
import os
import socket
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from tandem.cli.parser import Parser, add_options, load_config, to_arguments
from tandem.cli.up_config import SPLIT, UpConfig
from tandem.core.errors import ConfigError
from tandem.drafter.config import DrafterConfig
from tandem.drafter.lookup_config import LookupConfig
from tandem.gateway.config import GatewayConfig
from tandem.rpc.addresses import UNIX_PREFIX, socket_path
from tandem.telemetry.logs import LogConfig
from tandem.verifier.config import NO_DRAFTER, VerifierConfig

# What `up` decides itself, because the services have to find each other.
_DECIDED = {"tokenizer", "verifier", "drafter", "lookup_drafter", "draft_model", "target"}
_WILDCARDS = {"0.0.0.0": "127.0.0.1", "[::]": "[::1]"}  # noqa: S104
# Beyond the time that a service gives its running requests, until it is killed.
_MARGIN_SECONDS = 5.0
SUPERVISED = "tandem.cli.supervised"


@dataclass(frozen=True)
class ServicePlan:
    """One service to start."""

    name: str
    arguments: tuple[str, ...]  # of the `tandem` command, or of another module
    address: str  # where its health can be asked
    grace_seconds: float  # from the first signal until it is killed
    module: str = SUPERVISED  # that is run; it watches its stdin, and ends when that does


@dataclass(frozen=True)
class Plan:
    """Services in the order in which they start; they stop in the opposite one."""

    services: tuple[ServicePlan, ...]
    gateway: str  # address for clients on this machine; without a gateway of its own, for gateways
    verifier: str
    has_drafter: bool  # that is waited for
    http: str = ""  # the gateway's other address, for clients over HTTP; empty: none


def add_plan_options(parser: Parser) -> None:
    """Adds every setting of the services that is left to choose."""
    add_options(parser, UpConfig)
    add_options(parser, GatewayConfig, VerifierConfig, LogConfig, without=_DECIDED)


def memory_directory(arguments: argparse.Namespace, up: UpConfig, environment: Mapping[str, str] = os.environ) -> str:
    """The memory-backed folder in which the run directory belongs."""
    return _lone_verifier(arguments, up, environment).exchange_directory


def make_plan(
    arguments: argparse.Namespace, up: UpConfig, run_directory: Path, environment: Mapping[str, str] = os.environ
) -> Plan:
    """Decides on addresses and gives every service its settings, complete: nothing of the environment reaches it.

    Args:
        arguments: options that `add_plan_options` made.
        up: the same arguments' `UpConfig`.
        run_directory: private and memory-backed, for sockets and for what verifier and drafter share.
        environment: where settings are looked for besides.

    Raises:
        ConfigError: settings that cannot work together, or an address that is taken.
    """
    outermost: GatewayConfig | VerifierConfig
    if up.gateway:
        outermost = load_config(GatewayConfig, arguments, {"tokenizer": up.target}, environment)
    else:
        outermost = _lone_verifier(arguments, up, environment)
    address = free_address(outermost.listen)
    verifier_address = f"{UNIX_PREFIX}{run_directory / 'verifier.sock'}" if up.gateway else address
    drafter_address = f"{UNIX_PREFIX}{run_directory / 'drafter.sock'}"
    lookup_address = f"{UNIX_PREFIX}{run_directory / 'lookup.sock'}"
    is_split = up.drafter == SPLIT
    verifier_config = load_config(
        VerifierConfig,
        arguments,
        {
            "target": up.target,
            "listen": verifier_address,
            "drafter": drafter_address if is_split else up.drafter,
            "lookup_drafter": lookup_address if up.lookup else "",
            "draft_model": "" if is_split else up.draft_model_in_force,
            "exchange_directory": str(run_directory),
            "metrics_listen": _port_after(outermost.metrics_listen, 1 if up.gateway else 0),
            # A port has one service behind it: the outermost.
            **({"health_listen": ""} if up.gateway else {}),
        },
        environment,
    )
    log_arguments = to_arguments(load_config(LogConfig, arguments, {}, environment))

    def service(
        name: str, config: GatewayConfig | VerifierConfig | DrafterConfig | LookupConfig, address: str
    ) -> ServicePlan:
        settings = (name, *to_arguments(config), *log_arguments)
        return ServicePlan(name, settings, _local(address), config.drain_seconds + _MARGIN_SECONDS)

    http = ""
    services = [service("verifier", verifier_config, verifier_config.health_listen or verifier_address)]
    if up.gateway:
        assert isinstance(outermost, GatewayConfig)
        http = outermost.http_listen and free_address(outermost.http_listen)
        decided = {"tokenizer": up.target, "verifier": verifier_address, "listen": address, "http_listen": http}
        gateway_config = load_config(GatewayConfig, arguments, decided, environment)
        if gateway_config.tls:
            raise ConfigError("'tandem up' serves plain text on this machine; for TLS start 'tandem gateway' by itself")
        services.append(service("gateway", gateway_config, gateway_config.health_listen or address))
    if is_split:
        decided = {
            "draft_model": up.draft_model_in_force,
            "target": up.target,
            "listen": drafter_address,
            "draft_position": verifier_config.draft_position,
            "device": up.drafter_device or verifier_config.device,
            "metrics_listen": _port_after(outermost.metrics_listen, 2 if up.gateway else 1),
        }
        if verifier_config.num_speculative_tokens is not None:
            decided["num_speculative_tokens"] = str(verifier_config.num_speculative_tokens)
        # Nothing of the environment: one name would mean the verifier's threads too.
        drafter_config = load_config(DrafterConfig, argparse.Namespace(), decided, {})
        services.insert(0, service("drafter", drafter_config, drafter_address))
    if up.lookup:
        lookup_config = LookupConfig(
            listen=lookup_address,
            num_speculative_tokens=verifier_config.max_draft_tokens,
            metrics_listen=_port_after(outermost.metrics_listen, 3 if up.gateway else 2),
        )
        services.insert(0, service("lookup-drafter", lookup_config, lookup_address))
    # A verifier that others call may want to be shown a certificate: it is not asked after its drafter.
    has_drafter = up.gateway and (up.drafter != NO_DRAFTER or up.lookup)
    return Plan(tuple(services), _local(address), _local(verifier_address), has_drafter, _local(http))


def _port_after(listen: str, distance: int) -> str:
    """Where another service shows its metrics: the outermost one's port, so many further; 0 stays a free one."""
    host, _, port = listen.rpartition(":")
    return f"{host}:{int(port) + distance}" if port.isdecimal() and int(port) else listen


def free_address(listen: str) -> str:
    """`listen` with a port in place of 0, so that a gateway that starts again has the same one.

    Raises:
        ConfigError: something listens there already, whose health could pass for that of our gateway.
    """
    path = socket_path(listen)
    if path:
        with socket.socket(socket.AF_UNIX) as probe:
            if probe.connect_ex(str(path)) == 0:
                raise ConfigError(f"cannot listen on {listen}: another process does")
        return listen
    host, _, port = listen.rpartition(":")
    if not (host and port.isdecimal() and int(port) <= 65535):
        raise ConfigError(f"cannot listen on {listen!r}: expected HOST:PORT or {UNIX_PREFIX}/PATH")
    try:
        family, kind, _, _, target = socket.getaddrinfo(host.strip("[]"), port, type=socket.SOCK_STREAM)[0]
        with socket.socket(family, kind) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(target)
            return f"{host}:{probe.getsockname()[1]}"
    except OSError as error:
        raise ConfigError(f"cannot listen on {listen}: {error.strerror}") from None


def _lone_verifier(arguments: argparse.Namespace, up: UpConfig, environment: Mapping[str, str]) -> VerifierConfig:
    """The verifier's settings but for its drafters, which have to be planned first."""
    decided = {"target": up.target, "drafter": NO_DRAFTER, "lookup_drafter": "", "draft_model": ""}
    return load_config(VerifierConfig, arguments, decided, environment)


def _local(address: str) -> str:
    """Where a client on this machine finds a server that listens on `address`."""
    host, colon, port = address.rpartition(":")
    return f"{_WILDCARDS.get(host, host)}{colon}{port}"
