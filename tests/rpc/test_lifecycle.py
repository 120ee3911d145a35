import asyncio
import os
import signal

import grpc
import pytest

from tandem.internal.v1 import verifier_service_pb2 as pb
from tandem.rpc.lifecycle import run, serve_until_stopped


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_a_signal_drains_and_returns(server, fake, stub, number):
    go_on = asyncio.Event()

    async def generate(request):
        yield pb.GenerateResponse(started={})
        await go_on.wait()

    fake.script = generate
    call = stub.Generate(pb.GenerateRequest())
    await call.read()
    serving = asyncio.create_task(serve_until_stopped(server, drain_seconds=5))
    await asyncio.sleep(0.05)
    os.kill(os.getpid(), number)
    await asyncio.sleep(0.05)
    assert not serving.done()
    go_on.set()
    assert await call.read() is grpc.aio.EOF
    await asyncio.wait_for(serving, 2)


async def test_a_second_signal_does_not_wait(server, fake, stub):
    async def generate(request):
        yield pb.GenerateResponse(started={})
        await asyncio.Event().wait()

    fake.script = generate
    call = stub.Generate(pb.GenerateRequest())
    await call.read()
    serving = asyncio.create_task(serve_until_stopped(server, drain_seconds=60))
    await asyncio.sleep(0.05)
    os.kill(os.getpid(), signal.SIGTERM)
    await asyncio.sleep(0.05)
    os.kill(os.getpid(), signal.SIGTERM)
    await asyncio.wait_for(serving, 2)


async def test_work_that_fails_ends_the_server(server):
    cleaned_up = asyncio.Event()

    async def fail():
        await asyncio.sleep(0.01)
        raise RuntimeError("engine is dead")

    async def go_on():
        try:
            await asyncio.Event().wait()
        finally:
            cleaned_up.set()

    with pytest.raises(RuntimeError, match="engine is dead"):
        await asyncio.wait_for(serve_until_stopped(server, drain_seconds=60, background=[fail(), go_on()]), 2)
    assert cleaned_up.is_set()


def test_services_run_on_uvloop():
    async def main():
        assert type(asyncio.get_running_loop()).__module__.startswith("uvloop")

    run(main())
