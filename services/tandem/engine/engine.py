"""The engine: one thread that owns the device, and the door through which other threads hand it sequences."""

import logging
import threading
import time
from collections.abc import Callable

from tandem.core.errors import EngineFault, KvCacheFull, QueueFull
from tandem.core.sequence import FinishReason, Sequence
from tandem.engine.calibration import calibrate
from tandem.engine.output import SequenceOutput
from tandem.engine.round_loop import RoundLoop
from tandem.models.progress import Progress
from tandem.telemetry import metrics as names

logger = logging.getLogger(__name__)

MAX_FAULTS_IN_A_ROW = 3

Publish = Callable[[list[SequenceOutput]], None]


class Engine:
    """Generates tokens for sequences, many at a time.

    `submit` and `cancel` may be called from any thread and never wait for the device. Everything else happens on the
    engine's own thread, `publish` included.
    """

    def __init__(self, rounds: RoundLoop, publish: Publish) -> None:
        """Takes the parts; `start` begins to work.

        Args:
            rounds: the loop over scheduler, drafters and runner.
            publish: told each round's outputs; returns at once.
        """
        self._rounds = rounds
        self._publish = publish
        self._wake = threading.Condition()
        self._arrived: list[Sequence] = []
        self._cancelled: set[int] = set()
        self._num_taken = 0  # sequences submitted and not ended
        self._is_stopping = False
        self._failure: BaseException | None = None
        self._num_faults = 0  # rounds in a row that raised
        self._thread = threading.Thread(target=self._run, name="engine", daemon=True)
        for group, pool in rounds.kv.pools.items():
            rounds.metrics.set(names.KV_BLOCKS, pool.num_blocks, group=group)

    def calibrate(self) -> None:
        """Before `start`: measures steps, for a policy that goes by what they take. Takes seconds.

        Rounds that run ahead of the host are measured as they come.
        """
        if not self._rounds.ahead:
            calibrate(self._rounds)

    def capture(self, progress: Progress | None = None) -> None:
        """Before `start`: captures the rounds that run ahead of the host. Takes seconds."""
        if self._rounds.ahead:
            self._rounds.ahead.capture(progress)

    def start(self) -> None:
        """Starts the thread."""
        self._thread.start()

    def stop(self) -> None:
        """Ends what runs as cancelled, and waits for the thread."""
        with self._wake:
            self._is_stopping = True
            self._wake.notify()
        self._thread.join()
        if self._rounds.ahead:
            self._rounds.ahead.close()

    def submit(self, sequence: Sequence) -> None:
        """Takes a sequence in; its outputs will be published.

        Raises:
            QueueFull: as many wait as may wait.
            KvCacheFull: the whole cache could not hold it.
            EngineFault: the engine has given up.
        """
        scheduler = self._rounds.scheduler
        num_tokens = sequence.num_prompt_tokens + sequence.stopping.max_tokens - 1  # the last one needs no KV
        if not self._rounds.kv.can_ever_hold(num_tokens):
            raise KvCacheFull(
                f"prompt and max_tokens are {num_tokens} tokens together, more than the KV cache has room for; "
                "ask for fewer tokens",
                retry_after_seconds=60.0,
            )
        with self._wake:
            if self._failure or self._is_stopping:
                raise EngineFault("the engine does not run")
            if self._num_taken >= scheduler.limits.max_sequences + scheduler.limits.max_queue:
                raise QueueFull(f"{self._num_taken} requests run or wait already")
            self._num_taken += 1
            self._arrived.append(sequence)
            self._wake.notify()

    def cancel(self, sequence_id: int) -> None:
        """Ends a sequence within one round; one that has ended already is left alone."""
        with self._wake:
            self._cancelled.add(sequence_id)
            self._wake.notify()

    def wait_until_dead(self) -> BaseException | None:
        """Returns when the thread ends: what it died of, or None if it was stopped."""
        self._thread.join()
        return self._failure

    def _run(self) -> None:
        try:
            while self._take_in():
                self._run_guarded()
        except BaseException as error:  # whoever watches the thread must learn of it
            logger.exception("the engine ends")
            self._failure = error
        self._end_all(FinishReason.FAULT if self._failure else FinishReason.CANCELLED)
        self._rounds.speculation.close()

    def _take_in(self) -> bool:
        """Waits for work and takes it in; False when told to stop."""
        scheduler = self._rounds.scheduler
        with self._wake:
            if not (scheduler.sequences or self._arrived or self._is_stopping):
                scheduler.check_integrity()
                self._wake.wait_for(lambda: self._arrived or self._is_stopping)
            arrived, self._arrived = self._arrived, []
            cancelled, self._cancelled = self._cancelled, set()
            is_stopping = self._is_stopping
        for sequence in arrived:
            scheduler.add(sequence)
            self._rounds.metrics.count(names.PROMPT_TOKENS, sequence.num_prompt_tokens)
        self._end_unwanted(cancelled)
        return not is_stopping

    def _end_unwanted(self, cancelled: set[int]) -> None:
        """Ends what was cancelled and what is past its deadline."""
        now = time.monotonic()
        outputs = []
        for sequence in self._rounds.scheduler.sequences:
            if sequence.sequence_id in cancelled:
                outputs.append(self._rounds.end(sequence, FinishReason.CANCELLED))
            elif sequence.deadline is not None and now >= sequence.deadline:
                outputs.append(self._rounds.end(sequence, FinishReason.DEADLINE))
        self._send(outputs)

    def _run_guarded(self) -> None:
        """One round; a fault ends the sequences of the moment, and the engine goes on with the next ones."""
        outputs: list[SequenceOutput] = []
        try:
            self._rounds.run_round(outputs)
            self._num_faults = 0
        except Exception:
            self._num_faults += 1
            if self._num_faults >= MAX_FAULTS_IN_A_ROW:
                raise
            logger.exception("a round failed; its sequences end")
            self._rounds.forget()
            self._send(outputs)
            self._end_all(FinishReason.FAULT)
            return
        self._send(outputs)

    def _end_all(self, reason: FinishReason) -> None:
        self._send([self._rounds.end(sequence, reason) for sequence in self._rounds.scheduler.sequences])

    def _send(self, outputs: list[SequenceOutput]) -> None:
        if not outputs:
            return
        scheduler = self._rounds.scheduler
        with self._wake:
            self._num_taken -= sum(output.end is not None for output in outputs)
        self._rounds.metrics.set(names.RUNNING_SEQUENCES, scheduler.num_running)
        self._rounds.metrics.set(names.QUEUED_REQUESTS, scheduler.num_waiting)
        for group, pool in self._rounds.kv.pools.items():
            self._rounds.metrics.set(names.KV_FREE_BLOCKS, pool.num_free, group=group)
            self._rounds.metrics.set(names.KV_USE, 1 - pool.num_free / pool.num_blocks, group=group)
        self._publish(outputs)
