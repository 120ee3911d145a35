"""`tandem generate`, `chat` and `doctor` as processes, against a gateway whose verifier plays scripts."""

import asyncio
import os
import pty
import re
import signal
import subprocess
import sys

import pytest
from grpc_health.v1 import health_pb2

from tandem.core.errors import QueueFull
from tandem.v1 import types_pb2
from tests.rpc.fake_verifier import finished, play, started, verified

STATISTICS = types_pb2.SpeculationStatistics(num_rounds=2, num_draft_tokens=8, num_accepted_tokens=3)


def start(*arguments, stdout=subprocess.PIPE):
    """Starts `tandem`, with nothing of this process's own settings."""
    environment = {name: text for name, text in os.environ.items() if name != "NO_COLOR"}
    environment |= {"PYTHONPATH": os.pathsep.join(filter(None, sys.path)), "TERM": "xterm"}
    command = [sys.executable, "-m", "tandem.cli", *arguments]
    pipe = subprocess.PIPE
    return subprocess.Popen(command, env=environment, stdin=pipe, stdout=stdout, stderr=pipe)


async def end(process, stdin=""):
    """Waits for a process: exit code, the rest of stdout, stderr."""
    try:
        out, err = await asyncio.to_thread(process.communicate, stdin.encode(), 30)
    finally:
        process.kill()
    return process.returncode, (out or b"").decode(), err.decode()


async def tandem(*arguments, stdin=""):
    """Runs `tandem` to its end."""
    return await end(start(*arguments), stdin)


async def read(process, num_bytes):
    """The next bytes of a process's stdout."""
    return await asyncio.to_thread(process.stdout.read, num_bytes)


@pytest.fixture
def say(fake, tokenizer):
    """Makes the verifier answer every request with a text, in two rounds whose first tokens were drafted."""

    def say(text):
        ids = tokenizer.encode(text)
        fake.script = lambda request: play(
            started(seed=41),
            verified(ids[:2], 1, 4),
            verified(ids[2:], 2, 4),
            finished(types_pb2.FINISH_REASON_LENGTH, speculation=STATISTICS),
        )
        return ids

    return say


async def test_generate_streams_the_text_and_ends_with_figures(client, say):
    ids = say("jumps over it")
    code, out, err = await tandem("generate", f"--server={client.address}", "the fox")
    assert (code, out) == (0, "jumps over it\n")
    assert re.fullmatch(
        rf"rounds 2, drafted 8, accepted 3, acceptance length 2\.50, tokens {len(ids)}, "
        r"[\d.]+ tokens/s, first token after \d+ ms\n",
        err,
    )


async def test_generate_reads_stdin_and_sends_what_it_was_told(client, say, fake, tokenizer):
    say("jumps")
    code, _, _ = await tandem(
        "generate", f"--server={client.address}", "--temperature=0", "--seed=5", "--max-tokens=9", "--top-k=3",
        "--num-speculative-tokens=2", "--stop=\n\n", "--ignore-eos", "--request-id=r-7", "-",
        stdin="the fox",
    )  # fmt: skip
    (request,) = fake.requests
    assert code == 0
    assert list(request.prompt_token_ids) == [2, *tokenizer.encode("the fox")]
    assert (request.request_id, request.max_tokens, request.num_speculative_tokens) == ("r-7", 9, 2)
    assert request.sampling == types_pb2.SamplingOptions(temperature=0, seed=5, top_k=3)
    assert request.ignore_eos


async def test_a_terminal_shows_accepted_drafts_in_colour(client, say):
    say("jumps over it")
    ours, theirs = pty.openpty()
    process = start("generate", f"--server={client.address}", "the fox", stdout=theirs)
    os.close(theirs)
    code, _, _ = await end(process)
    shown = os.read(ours, 65536).decode()
    os.close(ours)
    assert code == 0
    assert re.sub(r"\x1b\[\d+m", "", shown) == "jumps over it\r\n"
    assert shown.count("\x1b[32m") == 3


async def test_refusals_are_one_line_with_the_code(client, fake):
    async def script(request):
        raise QueueFull("as many requests wait as may")
        yield

    fake.script = script
    code, out, err = await tandem("generate", f"--server={client.address}", "the fox")
    assert (code, out) == (1, "")
    assert err == "tandem generate: error: RESOURCE_EXHAUSTED: as many requests wait as may\n"
    code, _, err = await tandem("generate", f"--server={client.address}", "--model=another", "the fox")
    assert code == 1 and err.startswith("tandem generate: error: NOT_FOUND: ")


async def test_nobody_there(unused_tcp_port):
    code, out, err = await tandem("generate", f"--server=127.0.0.1:{unused_tcp_port}", "the fox")
    assert (code, out) == (1, "")
    assert err == (
        f"tandem generate: error: UNAVAILABLE: no gateway answers at 127.0.0.1:{unused_tcp_port}; "
        "'tandem up' starts one\n"
    )


async def test_ctrl_c_ends_generate_and_the_work(client, fake, tokenizer):
    ids = tokenizer.encode("jumps")

    async def script(request):
        yield started()
        yield verified(ids)
        await asyncio.Event().wait()

    fake.script = script
    process = start("generate", f"--server={client.address}", "the fox")
    assert await read(process, 5) == b"jumps"
    process.send_signal(signal.SIGINT)
    assert await end(process) == (130, "\n", "")
    await asyncio.wait_for(fake.idle.wait(), 5)


async def test_a_chat_remembers_what_was_said(client, say, fake, tokenizer):
    say("jumps")
    code, out, err = await tandem(
        "chat", f"--server={client.address}", "--system=be brief", stdin="the fox\n\nand then\n/exit\nnever\n"
    )
    assert (code, out) == (0, "jumps\njumps\n")
    assert err.count("acceptance length") == 2
    prompt = tokenizer.library.decode(fake.requests[1].prompt_token_ids, skip_special_tokens=False)
    turns = re.findall(r"<\|turn>(\w+)\n(.*?)<turn\|>", prompt)
    assert turns == [("system", "be brief"), ("user", "the fox"), ("model", "jumps"), ("user", "and then")]


async def test_ctrl_c_in_a_chat_ends_the_answer_only(client, fake, tokenizer):
    ids = tokenizer.encode("jumps")

    async def hang(request):
        yield started()
        yield verified(ids)
        await asyncio.Event().wait()

    fake.script = hang
    process = start("chat", f"--server={client.address}")
    process.stdin.write(b"the fox\n")
    process.stdin.flush()
    assert await read(process, 5) == b"jumps"
    process.send_signal(signal.SIGINT)
    await asyncio.wait_for(fake.idle.wait(), 5)
    fake.script = lambda request: play(started(), verified(ids), finished())
    code, out, err = await end(process, "again\n")
    assert (code, out) == (0, "\njumps\n") and "cancelled" in err


async def test_an_error_does_not_end_a_chat(client, fake, tokenizer):
    async def refuse(request):
        raise QueueFull("full")
        yield

    fake.script = refuse
    code, _, err = await tandem("chat", f"--server={client.address}", stdin="the fox\nagain\n")
    assert code == 0 and err.count("error: RESOURCE_EXHAUSTED: full") == 2


async def test_an_api_key_is_sent(open_client, verifier, say, tmp_path):
    say("jumps")
    keys = tmp_path / "keys"
    keys.write_text("# ours\nsecret\n")
    async with open_client(api_keys_file=str(keys)) as client:
        await client.wait_for_health(health_pb2.HealthCheckResponse.SERVING)
        code, _, err = await tandem("generate", f"--server={client.address}", "the fox")
        assert code == 1 and "UNAUTHENTICATED" in err
        code, out, _ = await tandem("generate", f"--server={client.address}", f"--api-key-file={keys}", "the fox")
        assert (code, out) == (0, "jumps\n")
    code, _, err = await tandem("generate", "--api-key-file=/nowhere", "the fox")
    assert code == 2 and "cannot read the API key" in err


async def test_doctor_tells_what_is_served(client, checkpoint):
    code, out, _ = await tandem("doctor", f"--server={client.address}", f"--target={checkpoint}", "--drafter=none")
    assert code == 1, "a folder with a tokenizer alone is no model"
    verdicts = {name: verdict for verdict, name in re.findall(r"^(ok|warn|fail) +(\S+)", out, re.MULTILINE)}
    assert verdicts["models"] == "fail" and verdicts["python"] == "ok"
    assert verdicts["gateway"] == verdicts["model"] == verdicts["drafter"] == "ok"
    assert "tiny-drafter, K = 4" in out


async def test_doctor_misses_a_gateway_only_where_one_was_named(unused_tcp_port, tmp_path):
    code, out, _ = await tandem("doctor", f"--server=127.0.0.1:{unused_tcp_port}")
    assert code == 1 and re.search(r"^fail +gateway .*'tandem up'", out, re.MULTILINE)
