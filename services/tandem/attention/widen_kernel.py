"""Numbers of 8 bits as wide as those that they are multiplied by."""

import triton
import triton.language as tl


@triton.jit
def widened(numbers, others):
    """Of the type that `others` have. By way of float32, since straight to bfloat16 is a slow instruction."""
    return numbers if numbers.dtype == others.dtype else numbers.to(tl.float32).to(others.dtype)
