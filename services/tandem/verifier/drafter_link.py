"""Drafts from another process, over a gRPC stream. A `Carrier` knows what the messages carry, and what they do not.

The engine's thread asks and waits; the service's event loop dials, sends and receives. Nothing that a drafter does is
trusted: it costs a round's drafts at worst, or the connection, which is then made anew.

    begin    engine -> loop: one request, unless as many are outstanding as may be
    answer   loop -> engine: what came, by an event that `collect` waits for
    late     the round stays outstanding; until its answer came nobody asks again, and at last the stream is given up
    stale    an answer to anything but the oldest outstanding round ends the stream: both sides begin anew with `Attach`
"""

import asyncio
import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field

import grpc

from tandem.drafter.v1 import drafter_service_pb2 as pb
from tandem.engine.draft_source import DrafterInfo, Drafts, Fallback, Wanted
from tandem.rpc.addresses import socket_path
from tandem.rpc.channel import open_channel
from tandem.telemetry import metrics as names
from tandem.telemetry.metrics import Metrics
from tandem.verifier.attachment import MAX_REASON_CHARACTERS, Attachment, BrokenStream, Call, attach, printable
from tandem.verifier.carrier import Carrier
from tandem.verifier.fallback_log import FallbackLog
from tandem.verifier.peer import NobodyListens, PeerRefused, check_peer
from tandem.verifier.slot_traces import SlotTraces

logger = logging.getLogger(__name__)

MAX_MESSAGE_BYTES = 1 << 20
STUCK_SECONDS = 5.0  # an answer that late will not come
RETRY_SECONDS = 0.2
MAX_RETRY_SECONDS = 5.0
STABLE_SECONDS = 10.0  # an attachment that lasted so long was a good one


@dataclass
class Round:
    """A request and, once `answered` is set, its answer. It has left this process once `sent` is set."""

    slots: Sequence[int]  # that drafts are wanted for
    request: pb.DraftRequest
    asked_at: float = field(default_factory=time.monotonic)
    sent: threading.Event = field(default_factory=threading.Event)
    answered: threading.Event = field(default_factory=threading.Event)
    outcome: pb.DraftResponse | Fallback = Fallback.LATE  # until it is another

    def answer(self, outcome: pb.DraftResponse | Fallback) -> None:
        """Wakes whoever waits."""
        self.outcome = outcome
        self.answered.set()


class DrafterLink:
    """A `DraftSource` that is another process. Until `follow` has found one, nobody drafts."""

    max_outstanding = 1  # requests without an answer

    def __init__(
        self, address: str, carrier: Carrier, target_revision: str, timeout_seconds: float, metrics: Metrics
    ) -> None:
        """Knows no drafter yet.

        Args:
            address: `unix:/path` of the drafter.
            carrier: of what the drafter drafts from, and of its drafts.
            target_revision: short hash of the target's checkpoint, for the drafter to tell.
            timeout_seconds: longest wait for a round's drafts.
            metrics: counts attachments, and rounds that nobody could be asked for because an answer was late.
        """
        path = socket_path(address)
        assert path, "a drafter is trusted by the socket that it listens on"
        self._address, self._path = address, path
        self._carrier = carrier
        self._target_revision = target_revision
        self._timeout_seconds = timeout_seconds
        self._metrics = metrics
        self.traces = SlotTraces()
        self._log = FallbackLog()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._lock = threading.Lock()  # of the next two, which both threads change
        self._attachment: Attachment | None = None
        self._outstanding: deque[Round] = deque()  # oldest first
        self._asked: Round | None = None  # what `collect` shall answer
        self._number = 0
        self._sending: set[asyncio.Future[None]] = set()  # held, or they could vanish on their way
        self._is_closed = False

    @property
    def info(self) -> DrafterInfo | None:
        """The drafter attached now."""
        attachment = self._attachment
        return attachment.info if attachment else None

    def begin(self, wanted: Sequence[Wanted]) -> bool:
        """Sends a request, unless nobody is there or too many answers are outstanding.

        Waits until it has left: what this thread does next would keep the interpreter from the one that sends.
        """
        self._asked = self._ask(wanted)
        if self._asked:
            self._asked.sent.wait(self._timeout_seconds)
        return self._asked is not None

    def collect(self) -> Drafts:
        """Waits for the answer, then reads the drafts."""
        asked, self._asked = self._asked, None
        assert asked, "begin comes first"
        asked.answered.wait(asked.asked_at + self._timeout_seconds - time.monotonic())
        outcome = asked.outcome
        if isinstance(outcome, Fallback):
            return self._fall_back(outcome)
        drafts = self._carrier.read(asked.slots, asked.request, outcome)
        if drafts is None:
            return self._fall_back(Fallback.INVALID)
        return Drafts(drafts)

    def close(self) -> None:
        """Lets the drafter go for good."""
        with self._lock:
            self._is_closed = True
            attachment = self._attachment
        if attachment:
            self._on_loop(attachment.call.cancel)

    async def follow(self) -> None:
        """Dials, attaches and receives, again and again, for as long as the verifier lives."""
        self._loop = asyncio.get_running_loop()
        delay, told = RETRY_SECONDS, ""
        while not self._is_closed:
            attached_at = None
            try:
                check_peer(self._path)
                async with open_channel(self._address, MAX_MESSAGE_BYTES) as channel:
                    attachment = await attach(channel, self._carrier, self._target_revision)
                    attached_at = time.monotonic()
                    await self._receive(attachment)
            except Exception as error:
                reason, is_absent = _describe(error), isinstance(error, NobodyListens)
            if attached_at:
                logger.warning("drafter %s lost: %s", attachment.info.name, reason)
            elif reason != told:
                logger.warning("no drafter at %s: %s", self._address, reason)
            told = reason
            is_stable = attached_at is not None and time.monotonic() - attached_at >= STABLE_SECONDS
            # Whoever breaks every attachment is dialled ever more rarely.
            delay = RETRY_SECONDS if is_absent or is_stable else min(2 * delay, MAX_RETRY_SECONDS)
            await asyncio.sleep(delay)
        await asyncio.Event().wait()  # as before: until it is cancelled

    def _ask(self, wanted: Sequence[Wanted]) -> Round | None:
        with self._lock:
            attachment = self._attachment
            late = self._outstanding[0] if len(self._outstanding) == self.max_outstanding else None
        if attachment is None or self._is_closed:
            return None
        if late:
            self._metrics.count(names.SPEC_FALLBACKS, reason=Fallback.LATE.value)
            self._log.add(Fallback.LATE)
            if time.monotonic() - late.asked_at > STUCK_SECONDS:
                self._on_loop(attachment.call.cancel)
            return None
        num_tokens = min(max(one.num_tokens for one in wanted), attachment.info.num_speculative_tokens)
        if num_tokens <= 0:
            return None
        self._number += 1
        request = self._carrier.request(attachment.generation, self._number, wanted, num_tokens)
        request.traces.extend(self.traces.news(attachment.generation))
        asked = Round([one.slot for one in wanted], request)
        with self._lock:
            if self._attachment is not attachment:
                return None  # lost a moment ago
            self._outstanding.append(asked)
        self._on_loop(self._send, attachment.call, asked)
        return asked

    async def _receive(self, attachment: Attachment) -> None:
        """Takes answers until the stream breaks; it ends by raising, always."""
        with self._lock:
            self._attachment = attachment
        info = attachment.info
        self._metrics.count(names.DRAFTER_ATTACHMENTS)
        self._metrics.set(names.DRAFTER_ATTACHED, 1, carrier=self._carrier.name)
        logger.info("drafter %s attached: %d tokens a round", info.name, info.num_speculative_tokens)
        try:
            while True:
                response = await _read(attachment.call)
                self._take(attachment, response)
        finally:
            attachment.call.cancel()
            self._metrics.set(names.DRAFTER_ATTACHED, 0, carrier=self._carrier.name)
            with self._lock:
                self._attachment = None
                lost, self._outstanding = self._outstanding, deque()
            for one in lost:
                one.answer(Fallback.LOST)

    def _take(self, attachment: Attachment, response: pb.DraftResponse) -> None:
        with self._lock:
            asked = self._outstanding.popleft() if self._outstanding else None
        if asked is None:
            raise BrokenStream("it answered without being asked")
        if (response.generation, response.round) != (asked.request.generation, asked.request.round):
            asked.answer(Fallback.STALE)
            raise BrokenStream("it answered another round than the one asked for")
        counts = response.num_tokens
        if len(counts) != len(asked.request.slots) or any(count > asked.request.num_tokens for count in counts):
            asked.answer(Fallback.INVALID)
        else:
            asked.answer(response)
            self._metrics.observe(names.EXCHANGE_SECONDS, time.monotonic() - asked.asked_at)

    def _send(self, call: Call, asked: Round) -> None:
        sending = asyncio.ensure_future(_write(call, asked, tuple(self._sending)))
        self._sending.add(sending)
        sending.add_done_callback(self._sending.discard)

    def _fall_back(self, fallback: Fallback) -> Drafts:
        self._log.add(fallback)
        return Drafts((), fallback)

    def _on_loop(self, function: Callable[..., object], *args: object) -> None:
        assert self._loop
        with suppress(RuntimeError):  # the loop has ended, and everything with it
            self._loop.call_soon_threadsafe(function, *args)


async def _read(call: Call) -> pb.DraftResponse:
    """The next answer.

    Raises:
        BrokenStream: none will come.
    """
    try:
        response = await call.read()
    except asyncio.CancelledError:
        task = asyncio.current_task()
        if task and task.cancelling():
            raise
        raise BrokenStream("it did not answer for too long, or is not wanted any more") from None  # `call.cancel`
    if not isinstance(response, pb.DraftResponse):
        raise BrokenStream("it ended the stream")
    return response


async def _write(call: Call, asked: Round, before: Sequence[asyncio.Future[None]]) -> None:
    """Sends a request, once those before it are sent."""
    if before:
        await asyncio.wait(before)
    asyncio.get_running_loop().call_soon(asked.sent.set)  # when `write` has handed it over, and waits
    with suppress(grpc.aio.AioRpcError, asyncio.CancelledError, asyncio.InvalidStateError):  # the reader notices it too
        await call.write(asked.request)


def _describe(error: Exception) -> str:
    match error:
        case grpc.aio.AioRpcError():
            return f"{error.code().name}: {printable(error.details() or '', MAX_REASON_CHARACTERS)}"
        case TimeoutError():
            return "it does not answer"
        case BrokenStream() | PeerRefused() | OSError():
            return str(error)
        case _:
            return f"{type(error).__name__}: {printable(str(error), MAX_REASON_CHARACTERS)}"
