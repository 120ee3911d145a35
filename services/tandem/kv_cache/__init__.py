"""The paged KV cache: blocks, the tables that name them, and the tensors behind them."""
