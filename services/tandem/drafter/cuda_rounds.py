"""Rounds over an exchange on a GPU: answered as soon as the GPU has been told what to do, and when."""

from collections.abc import Callable, Sequence

import torch

from tandem.exchange.attached_cuda_exchange import AttachedCudaExchange

# Enqueues a round on the current stream: for slots, so many tokens each, from the inputs to the drafts of an exchange.
Draft = Callable[[Sequence[int], int], None]


class CudaRounds:
    """`Rounds` of an `AttachedCudaExchange`, on a stream of their own."""

    def __init__(self, exchange: AttachedCudaExchange, device: torch.device, draft: Draft) -> None:
        """Takes the parts.

        Args:
            exchange: the attached one.
            device: the GPU that drafts.
            draft: over the inputs and drafts of `exchange`.
        """
        self._exchange = exchange
        self._num_slots = exchange.inputs.spec.num_slots
        self._stream = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]
        self._draft = draft

    def draft(self, round_number: int, slots: Sequence[int], num_tokens: int) -> list[int]:
        """Hands a round to the GPU; what each slot will have there, whatever its inputs turn out to be."""
        if not slots:  # nobody waits for such a round
            return []
        known = [slot for slot in slots if slot < self._num_slots]
        with torch.cuda.stream(self._stream):
            self._exchange.begin(round_number)
            self._draft(known, num_tokens)
            self._exchange.end(round_number)
        return [num_tokens if slot < self._num_slots else 0 for slot in slots]

    def release(self) -> None:
        """Ends all waiting for the verifier's inputs. Any thread may call it."""
        self._exchange.release()

    def close(self) -> None:
        """Waits for what the GPU was told, then lets go of the exchange."""
        self._exchange.release()
        self._stream.synchronize()
        self._exchange.close()
