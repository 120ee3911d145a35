"""The processes under measurement: those of `tandem up`, with stand-ins for weights and judge."""

import argparse
import asyncio
import json
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from tandem.cli.bench.preset.config import PresetConfig
from tandem.cli.bench.preset.kind import Kind, Way, longest_context
from tandem.cli.bench.preset.memory import Memory, host_bytes
from tandem.cli.bench.preset.service import SERVICES, StandIns
from tandem.cli.bench.replica import Journal
from tandem.cli.client import Client, open_client
from tandem.cli.client_config import ClientConfig
from tandem.cli.parser import to_arguments
from tandem.cli.plan import Plan, ServicePlan, make_plan
from tandem.cli.supervisor import Supervisor
from tandem.cli.up_config import UpConfig
from tandem.verifier.config import NO_DRAFTER

MODULE = "tandem.cli.bench.preset.service"
# Beyond what is asked for: rounds that run ahead, blocks that are not full, and the warm-up text.
SPARE_TOKENS = 128


@dataclass(frozen=True)
class Replica:
    """Services that are ready."""

    gateway: Client
    _pids: Mapping[str, int]  # by service
    _sockets: Mapping[str, Path]  # of those that can be probed

    async def probe(self, profile_seconds: float = 0.0) -> dict[str, dict[str, Any]]:
        """What verifier and drafter tell of themselves, by service."""
        answers = await asyncio.gather(*(_ask(path, profile_seconds) for path in self._sockets.values()))
        return dict(zip(self._sockets, answers, strict=True))

    async def memory(self) -> Memory:
        """Of all services now."""
        answers = await self.probe()
        return Memory(
            host={name: host_bytes(pid) for name, pid in self._pids.items()},
            device={name: answer.get("device_bytes") for name, answer in answers.items()},
            device_in_use=max(answer.get("device_in_use", 0) for answer in answers.values()) or None,
        )


@asynccontextmanager
async def open_replica(
    config: PresetConfig, way: Way, kinds: list[Kind], paths: tuple[Path, Path], folder: Path, journal: Journal
) -> AsyncIterator[Replica]:
    """Starts the services, and stops them.

    Args:
        config: the settings.
        way: how texts are made.
        kinds: of texts that will be asked for; memory is taken for no more than these.
        paths: folders of target and drafter, without weights.
        folder: where the services meet, for them alone.
        journal: told what happens.

    Raises:
        ConfigError: a service refuses its settings.
        StartFailed: a service ended for another reason.
    """
    is_plain = way.drafter == NO_DRAFTER
    settings = argparse.Namespace(
        listen="127.0.0.1:0",
        log_level="warning",
        threads=str(config.threads),
        device=config.device,
        tensor_parallel=str(config.tensor_parallel),
        dtype=config.dtype,
        num_speculative_tokens="0" if is_plain else str(config.num_speculative_tokens),
        adaptive_k=str(way.adaptive_k),
        weights=way.weights,
        max_step_tokens=str(config.max_step_tokens),
        max_sequences=str(max(kind.batch for kind in kinds)),
        max_context=str(longest_context(kinds) + SPARE_TOKENS),
        kv_tokens=str(max(kind.batch * (kind.num_tokens + SPARE_TOKENS) for kind in kinds)),
        max_output_tokens=str(config.max_tokens),
        draft_timeout_ms="5000",  # whatever drafting takes is to be seen, not hidden by rounds without drafts
    )
    up = UpConfig(target=str(paths[0]), draft_model="" if is_plain else str(paths[1]), drafter=way.drafter)
    plan = _with_stand_ins(make_plan(settings, up, folder, {}), config, folder)
    sockets = {service.name: _probe_socket(folder, service) for service in plan.services if service.module == MODULE}
    supervisor = Supervisor(plan, journal.on_line, journal.on_event, journal.on_trouble)
    async with supervisor, open_client(ClientConfig(server=plan.gateway)) as gateway:
        yield Replica(gateway, supervisor.pids, sockets)


def _with_stand_ins(plan: Plan, config: PresetConfig, folder: Path) -> Plan:
    """The plan with our own entries of verifier and drafter."""

    def stand_in(service: ServicePlan) -> ServicePlan:
        if service.name not in SERVICES:
            return service
        stand_ins = StandIns(config.acceptance_length, config.device, str(_probe_socket(folder, service)))
        return replace(service, module=MODULE, arguments=(*service.arguments, *to_arguments(stand_ins)))

    return replace(plan, services=tuple(map(stand_in, plan.services)))


def _probe_socket(folder: Path, service: ServicePlan) -> Path:
    return folder / f"{service.name}.probe"


async def _ask(path: Path, profile_seconds: float) -> dict[str, Any]:
    reader, writer = await asyncio.open_unix_connection(str(path), limit=1 << 24)
    writer.write(json.dumps({"profile_seconds": profile_seconds}).encode() + b"\n")
    answer: dict[str, Any] = json.loads(await reader.readline())
    writer.close()
    return answer
