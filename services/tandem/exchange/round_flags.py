"""How far rounds have come: numbers in a page of host memory, which processes and the streams of GPUs read and write.

A stream writes a number when everything before it on the stream is done, and waits until one has been reached, without
anybody's host: `cuStreamWriteValue32` and `cuStreamWaitValue32`. A host can do both as well, by a plain load or store.
That is why these are not events: an event that a dead process was to record never happens, while a number is raised
by whoever is left. Measured on one H100, both and numbers in GPU memory cost a round of two processes the same 0.29 ms,
which two changes of context take, and a stream that waits takes no time from the other process.

Rounds rise for as long as the page lives, and are compared as CUDA does, modulo 2^32.
"""

import ctypes
import enum
import mmap

import torch
from cuda.bindings import driver, runtime

from tandem.exchange.device_memory import call

FLAGS_BYTES = 4096
_LINE_BYTES = 128  # from one flag to the next: each has a cache line of its own
_MASK = (1 << 32) - 1


class Flag(enum.IntEnum):
    """Which number, by its line of the page."""

    INPUTS = 1  # the verifier's stream: what that round is drafted from stands in memory
    DRAFTS = 2  # the drafter's stream: the drafts of that round stand in memory
    TAKEN = 3  # the verifier's stream: it has waited for the drafts of that round


class RoundFlags:
    """The page, mapped here and known to CUDA."""

    def __init__(self, descriptor: int) -> None:
        """Maps a file of FLAGS_BYTES in a memory-backed directory.

        Raises:
            ExchangeError: CUDA cannot use it; a file on a disk is such.
        """
        page = mmap.mmap(descriptor, FLAGS_BYTES)
        self._words = {flag: ctypes.c_uint32.from_buffer(page, flag * _LINE_BYTES) for flag in Flag}
        self._page = ctypes.addressof(ctypes.c_char.from_buffer(page))
        kind = runtime.cudaHostRegisterPortable | runtime.cudaHostRegisterMapped
        call(runtime.cudaHostRegister, self._page, FLAGS_BYTES, kind)
        self._pointer = int(call(runtime.cudaHostGetDevicePointer, self._page, 0))

    def write(self, flag: Flag, round_number: int) -> None:
        """On the current stream: behind what is on it, for every GPU and process to see."""
        call(driver.cuStreamWriteValue32, _stream(), self._address(flag), round_number & _MASK, 0)

    def wait(self, flag: Flag, round_number: int) -> None:
        """On the current stream: what follows waits until a flag has reached a round."""
        condition = driver.CUstreamWaitValue_flags.CU_STREAM_WAIT_VALUE_GEQ
        call(driver.cuStreamWaitValue32, _stream(), self._address(flag), round_number & _MASK, condition)

    def store(self, flag: Flag, round_number: int) -> None:
        """At once, from any thread."""
        self._words[flag].value = round_number & _MASK

    def has_reached(self, flag: Flag, round_number: int) -> bool:
        """Whether a wait for it would end now; from any thread."""
        return (self._words[flag].value - round_number) & _MASK < 1 << 31

    def close(self) -> None:
        """Takes the page from CUDA. No stream may wait for it any more."""
        call(runtime.cudaHostUnregister, self._page)

    def _address(self, flag: Flag) -> int:
        return self._pointer + flag * _LINE_BYTES


def _stream() -> int:
    return torch.cuda.current_stream().cuda_stream
