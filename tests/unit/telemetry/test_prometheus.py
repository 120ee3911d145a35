import asyncio

import pytest

from tandem.core.errors import ConfigError
from tandem.telemetry import metrics as table
from tandem.telemetry.metric import DRAFTER
from tandem.telemetry.metrics import Metrics
from tandem.telemetry.prometheus import render, scrape_port


async def ask(address, request):
    host, _, port = address.rpartition(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    writer.write(request)
    answer = await asyncio.wait_for(reader.read(), 5)
    writer.close()
    return answer


def test_buckets_add_up_and_labels_are_escaped():
    metrics = Metrics(DRAFTER)
    metrics.observe(table.DRAFT_SECONDS, 0.0001)
    metrics.observe(table.DRAFT_SECONDS, 7)
    metrics.observe(table.RPC_SECONDS, 0.1, rpc_method='a"\\\n', rpc_status_code="OK")
    lines = render(metrics).splitlines()
    assert 'tandem_draft_seconds_bucket{le="0.0001"} 1' in lines
    assert 'tandem_draft_seconds_bucket{le="1"} 1' in lines
    assert 'tandem_draft_seconds_bucket{le="+Inf"} 2' in lines and "tandem_draft_seconds_count 2" in lines
    assert 'tandem_rpc_seconds_count{rpc_method="a\\"\\\\\\n",rpc_status_code="OK"} 1' in lines


async def test_the_port_answers_one_path_and_nothing_else():
    async with scrape_port(Metrics(DRAFTER), "127.0.0.1:0") as address:
        page = await ask(address, b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n")
        assert page.startswith(b"HTTP/1.1 200 OK\r\n") and b"\ntandem_drafter_tokens_total 0\n" in page
        assert (await ask(address, b"GET / HTTP/1.1\r\n\r\n")).startswith(b"HTTP/1.1 404")
        assert (await ask(address, b"POST /metrics HTTP/1.1\r\n\r\n")).startswith(b"HTTP/1.1 405")
        assert await ask(address, b"x" * 20_000) == b""
        with pytest.raises(ConfigError, match="cannot show metrics"):
            async with scrape_port(Metrics(DRAFTER), address):
                pass
    with pytest.raises(ConfigError, match="expected HOST:PORT"):
        async with scrape_port(Metrics(DRAFTER), "9464"):
            pass
