"""An accelerator that is not there: tensors on PyTorch's meta device, on which a wrong device and a wait show.

What lies on `ACCELERATOR` has a shape and a type, and no numbers. Every operation passes `Accelerator`: one whose
tensors lie on two devices is refused, as a GPU would refuse it, and one for which the processor would have to wait
for a GPU is refused or recorded, with the place in the library that asked for it.
"""

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from types import FrameType
from typing import Any, NamedTuple
from unittest import mock

import torch
from monai.engines import Trainer
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

import trct_monai.physics  # noqa: F401  # its annotations name torch.Generator, which `accelerator` replaces

ACCELERATOR = torch.device("meta")
ASKING = (
    f"{Path(trct_monai.__file__).parent}/",
    "/monai/",
    "/ignite/",
    "/torch/optim/",
    "/torch/amp/",
    "/tensorboard/",
)

aten = torch.ops.aten
COPIES = {aten._to_copy.default, aten.copy_.default, aten._copy_from.default}
WAITS = {
    aten._local_scalar_dense,
    aten.bincount,
    aten.equal,
    aten.is_nonzero,
    aten._linalg_check_errors,
    aten.masked_select,
    aten.nonzero,
    aten.unique_consecutive,
    aten._unique2,
}
"""Operations whose result's shape or value the processor must know."""


MAY_WAIT_IN_A_STEP = {
    "readings.py:as_numbers": "losses and gradient norms, looked at every few iterations",
    "readings.py:__call__": "the progress bar's loss, read every few iterations",
    "named_handlers.py:_loss": "TensorBoard's loss, written every few iterations",
    "weighted_sum.py:gradient_norms": "compared once an epoch",
}
"""Who may wait for the device within a training step, and why it does no harm or cannot be helped."""


class Wait(NamedTuple):
    """An operation that waited, who asked for it ("module.py:function"), and whether it was within a training step."""

    operation: str
    place: str
    in_step: bool


class WrongDeviceError(RuntimeError):
    """Tensors of one operation lie on two devices."""


class MadeFromNumbers(TorchFunctionMode):
    """Sees tensors that are made on the accelerator from numbers of Python: a copy that waits."""

    def __init__(self, wait: Callable[[Any], None]) -> None:
        super().__init__()
        self.wait = wait

    def __torch_function__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = function(*args, **(kwargs or {}))
        if function in (torch.tensor, torch.as_tensor, Tensor.new_tensor) and result.device == ACCELERATOR:
            if not (isinstance(args[0], Tensor) and function is torch.as_tensor):
                self.wait(function)
        return result


class Accelerator(TorchDispatchMode):
    """Refuses operations over two devices, and keeps who waited for the accelerator in `waits`."""

    def __init__(self) -> None:
        super().__init__()
        self.waits: list[Wait] = []
        self.numbers = torch.Generator().manual_seed(0)
        self.generators: list[torch.Generator] = []

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        tensors = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, Tensor)]
        devices = {tensor.device for tensor in tensors if tensor.ndim or tensor.device == ACCELERATOR}
        if function in COPIES:
            target = args[0].device if function is aten.copy_.default else kwargs.get("device")
            source = args[1] if function is aten.copy_.default else args[0]
            target = source.device if target is None else torch.device(target)
            if target != source.device:
                return self._moved(function, source, target, args, kwargs)
        elif len(devices) > 1:
            raise WrongDeviceError(f"{function} of {[(tuple(t.shape), str(t.device)) for t in tensors]} at {place()}")
        elif ACCELERATOR in devices and any(self._is_foreign(leaf) for leaf in tree_leaves((args, kwargs))):
            raise WrongDeviceError(f"{function} by a generator of the CPU at {place()}")
        elif ACCELERATOR in devices and waits(function, args):
            self.wait(function)
            return made_up(function, args, kwargs)
        return function(*args, **kwargs)

    def _is_foreign(self, leaf: Any) -> bool:
        if not isinstance(leaf, torch._C.Generator):
            return False
        state = leaf.get_state()  # PyTorch wraps a generator anew for each operation
        return not any(torch.equal(own.get_state(), state) for own in self.generators)

    def _moved(self, function: Any, source: Tensor, target: torch.device, args: Any, kwargs: Any) -> Any:
        if target == ACCELERATOR:
            waiting = not (kwargs.get("non_blocking") or (function is aten.copy_.default and args[2:3] == (True,)))
            if waiting and source.ndim:
                self.wait(function)
            return function(*args, **kwargs)
        self.wait(function)
        if function is aten.copy_.default:
            return args[0]
        result = torch.zeros(source.shape, dtype=kwargs.get("dtype") or source.dtype, device=target)
        return result.uniform_(0, 1000, generator=self.numbers) if result.is_floating_point() else result

    def wait(self, function: Any) -> None:
        self.waits.append(Wait(str(function), place(), in_a_training_step()))


def waits(function: Any, args: Any) -> bool:
    """Whether the processor must know a number that an operation depends on or gives."""
    if function.overloadpacket in WAITS or function is aten.repeat_interleave.Tensor:
        return True
    if function.overloadpacket in (aten.index, aten.index_put, aten.index_put_, aten._index_put_impl_):
        return any(index is not None and index.dtype in (torch.bool, torch.uint8) for index in args[1])
    return False


def made_up(function: Any, args: Any, kwargs: Any) -> Any:
    """A number in place of one that the accelerator does not have."""
    if function.overloadpacket is aten._local_scalar_dense:
        return {torch.bool: True}.get(args[0].dtype, 1 if not args[0].dtype.is_floating_point else 1.0)
    if function.overloadpacket in (aten.is_nonzero, aten.equal):
        return True
    if function.overloadpacket is aten._linalg_check_errors:
        return None
    if function.overloadpacket in (aten.index_put, aten.index_put_, aten._index_put_impl_):
        return args[0]
    if function.overloadpacket is aten.index and len(args[1]) == 1:  # a mask of which all is true
        return args[0].flatten(0, args[1][0].ndim - 1).clone()
    if function.overloadpacket is aten.nonzero:
        return torch.zeros(args[0].numel(), args[0].ndim, dtype=torch.long, device=ACCELERATOR)
    raise RuntimeError(f"{function} depends on numbers that are not there, at {place()}")


def place() -> str:
    """Who asked, as "module.py:function": the innermost function of the library, or of one that it builds on."""
    frame = sys._getframe(1)
    while frame.f_back is not None and not any(name in frame.f_code.co_filename for name in ASKING):
        frame = frame.f_back
    return f"{Path(frame.f_code.co_filename).name}:{frame.f_code.co_name}"


def in_a_training_step() -> bool:
    """Whether a trainer goes through its data, and no evaluator within."""
    frame: FrameType | None = sys._getframe(1)
    while frame is not None:
        if frame.f_code.co_name.startswith("_run_once_on_dataset"):
            return isinstance(frame.f_locals["self"], Trainer)
        frame = frame.f_back
    return False


@contextmanager
def accelerator() -> Iterator[Accelerator]:
    """Everything within runs as if `ACCELERATOR` were a GPU; autocast there does nothing, and so do its generators."""

    autocast, generator = torch.autocast, torch.Generator

    def known(device_type: str, *args: Any, **kwargs: Any) -> Any:
        return nullcontext() if device_type == ACCELERATOR.type else autocast(device_type, *args, **kwargs)

    def known_generator(device: torch.device | str = "cpu") -> torch.Generator:
        if torch.device(device) != ACCELERATOR:
            return generator(device)
        mode.generators.append(generator())
        return mode.generators[-1]

    lifts = torch._C._only_lift_cpu_tensors()
    torch._C._set_only_lift_cpu_tensors(True)
    try:
        with mock.patch.object(torch, "autocast", known), mock.patch.object(torch, "Generator", known_generator):
            with Accelerator() as mode, MadeFromNumbers(mode.wait):
                yield mode
    finally:
        torch._C._set_only_lift_cpu_tensors(lifts)
