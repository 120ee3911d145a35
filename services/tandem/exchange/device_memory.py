"""Memory of a GPU that two processes see: one allocates it, the other opens it by a handle of 64 bytes.

CUDA lets a process open what another one allocated on a GPU that both see, if both live in one PID and one IPC
namespace. What is opened can be read and written, and stays until both have let go of it.
"""

import weakref
from collections.abc import Callable
from typing import Any

import torch
from cuda.bindings import driver, runtime

from tandem.core.errors import ExchangeError


class DeviceMemory:
    """Bytes of one GPU. They are let go of with the last tensor over them, and with this object."""

    def __init__(self, pointer: int, num_bytes: int, owner: int, let_go: Callable[[int], object]) -> None:
        """Takes over memory; see `allocate` and `open_memory`.

        Args:
            pointer: where it begins in this process' address space.
            num_bytes: its size.
            owner: index of the GPU that holds it.
            let_go: called with the pointer at the end.
        """
        self.pointer = pointer
        self.num_bytes = num_bytes
        self.owner = owner
        self.__cuda_array_interface__ = {
            "shape": (num_bytes,),
            "typestr": "|u1",
            "data": (pointer, False),
            "strides": None,
            "version": 3,
        }
        # At the end of the process the driver does it.
        weakref.finalize(self, let_go, pointer).atexit = False

    @property
    def handle(self) -> bytes:
        """By which another process opens it."""
        return bytes(call(runtime.cudaIpcGetMemHandle, self.pointer).reserved)

    def as_tensor(self, device: torch.device) -> torch.Tensor:  # [num_bytes] uint8
        """Its bytes, for kernels of `device`: the GPU that holds them, or one that reaches into it.

        In the second case the tensor does not keep this object alive: torch would call it one of the GPU that holds
        the bytes, and refuse to combine it with those of `device`.
        """
        if device.index == self.owner:
            return torch.as_tensor(self)
        storage = torch._C._construct_storage_from_data_pointer(self.pointer, device, self.num_bytes)
        return torch.empty(0, dtype=torch.uint8, device=device).set_(storage)


def allocate(num_bytes: int, device: torch.device) -> DeviceMemory:
    """New memory, all zeros.

    Raises:
        ExchangeError: the GPU has no room.
    """
    with torch.cuda.device(device):
        pointer = int(call(runtime.cudaMalloc, num_bytes))
        memory = DeviceMemory(pointer, num_bytes, device.index, _free)
        memory.as_tensor(device).zero_()
        torch.cuda.synchronize(device)
    return memory


def open_memory(handle: bytes, num_bytes: int, owner_uuid: str, device: torch.device) -> DeviceMemory:
    """Opens what another process allocated.

    Args:
        handle: of the memory.
        num_bytes: that it must have at least.
        owner_uuid: of the GPU that holds it.
        device: whose kernels will use it.

    Raises:
        ExchangeError: it cannot be opened here, for a reason that the text names, or is smaller.
    """
    owner = _find(owner_uuid)
    if owner != device.index and not call(runtime.cudaDeviceCanAccessPeer, device.index, owner):
        raise ExchangeError(
            f"{device} cannot reach into the verifier's GPU, {owner_uuid} (no peer access): the drafter needs that GPU "
            "itself, or one that is linked to it"
        )
    opened = runtime.cudaIpcMemHandle_t()
    opened.reserved = handle
    with torch.cuda.device(device):
        try:
            pointer = int(call(runtime.cudaIpcOpenMemHandle, opened, runtime.cudaIpcMemLazyEnablePeerAccess))
        except ExchangeError as error:
            raise ExchangeError(
                f"the verifier's GPU memory cannot be opened here ({error}): verifier and drafter must run on one "
                "machine, in one PID namespace and one IPC namespace (containers: --pid and --ipc container:VERIFIER; "
                "a pod: shareProcessNamespace)"
            ) from None
        memory = DeviceMemory(pointer, num_bytes, owner, _close)
        start, size = call(driver.cuMemGetAddressRange, pointer)
    if int(start) != pointer or size < num_bytes:
        raise ExchangeError(f"the verifier's GPU memory has {size} bytes instead of {num_bytes}")
    return memory


def device_uuid(device: torch.device) -> str:
    """By which processes that number GPUs differently know one."""
    return str(torch.cuda.get_device_properties(device).uuid)


def call(function: Callable[..., Any], *arguments: Any) -> Any:
    """What a function of CUDA returns behind its error code.

    Raises:
        ExchangeError: the code is one.
    """
    error, *results = function(*arguments)
    if error:
        raise ExchangeError(f"{function.__name__}: {error.name}")
    return results[0] if len(results) == 1 else tuple(results)


def _find(uuid: str) -> int:
    for index in range(torch.cuda.device_count()):
        if device_uuid(torch.device("cuda", index)) == uuid:
            return index
    raise ExchangeError(
        f"the verifier's GPU, {uuid}, is not visible to the drafter, which must see it even to draft on another one "
        "(CUDA_VISIBLE_DEVICES)"
    )


def _free(pointer: int) -> None:
    call(runtime.cudaFree, pointer)


def _close(pointer: int) -> None:
    call(runtime.cudaIpcCloseMemHandle, pointer)
