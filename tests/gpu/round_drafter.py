"""A drafter without a network, in a process of its own: it drafts arithmetic, after as much work as a test wants."""

import torch

from tandem.core.errors import ExchangeError


def expected(token_ids, num_tokens):
    """What it drafts after each token."""
    return token_ids.unsqueeze(1) * 3 + torch.arange(num_tokens, device=token_ids.device)


def work(matrix, num_products):
    """Keeps the GPU busy for some time."""
    for _ in range(num_products):
        matrix @ matrix


def serve(connection, device_index, num_products):
    """Attaches to a `CudaOffer`, then drafts for each message: round, slots from 0 on, number of tokens. None ends it.

    Answers each offer with "attached" or why not, and each round with its counts.
    """
    # Here, because they need a package that the tests can be collected without.
    from tandem.drafter.cuda_rounds import CudaRounds
    from tandem.exchange.attached_cuda_exchange import AttachedCudaExchange

    device = torch.device("cuda", device_index)
    torch.cuda.set_device(device)
    matrix = torch.randn(4096, 4096, device=device, dtype=torch.bfloat16)
    work(matrix, 1)
    torch.cuda.synchronize()
    exchange = None
    while exchange is None:
        try:
            exchange = AttachedCudaExchange(connection.recv(), device)
        except ExchangeError as error:
            connection.send(str(error))

    def draft(slots, num_tokens):
        work(matrix, num_products)
        exchange.drafts[: len(slots), :num_tokens] = expected(exchange.inputs.token_ids[: len(slots)], num_tokens)

    # CUDA loads a kernel at its first use, and may wait for every stream then: not behind one that waits itself.
    draft([0], exchange.drafts.shape[1])
    torch.cuda.synchronize()
    rounds = CudaRounds(exchange, device, draft)
    connection.send("attached")
    while (message := connection.recv()) is not None:
        connection.send(rounds.draft(*message))
    rounds.close()
    connection.send("closed")
