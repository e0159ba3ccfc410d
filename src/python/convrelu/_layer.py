"""Planned layers: from shapes and addresses to calls of the library.

A plan is made once per shape and kept. It knows lengths and workspaces, and calls the kernels with the addresses of buffers,
whoever owns them: NumPy or PyTorch. During a call the interpreter's lock is free.
"""

from __future__ import annotations

import ctypes
import functools
import math
import os
import threading
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from . import _library
from ._library import call, constants, initialised, library, new, structs

NCHW: int = constants["CONVRELU_NCHW"]
NHWC: int = constants["CONVRELU_NHWC"]
_PER_TAP: int = constants["CONVRELU_THRESHOLDS_PER_TAP"]
_LINEAR: int = constants["CONVRELU_THRESHOLDS_LINEAR"]
_UNIFORM: int = constants["CONVRELU_THRESHOLDS_UNIFORM"]
#: The threshold of a plain convolution.
LINEAR = -math.inf

_Error = structs["convrelu_error"]
_ERROR_SIZE = ctypes.sizeof(_Error)


class _Workspaces(threading.local):
    """One workspace per thread, as long as the longest call of it has needed."""

    def __init__(self) -> None:
        self.floats = np.empty(0, np.float32)
        self.address = 0

    def get(self, length: int) -> tuple[int, int]:
        """The address and the length of at least so many floats."""
        if self.floats.size < length:
            self.floats = np.empty(length, np.float32)
            self.address = self.floats.ctypes.data
        return self.address, self.floats.size


_workspaces = _Workspaces()


class Epilogue(NamedTuple):
    """What a forward pass does with its sums before it stores them: `clamp(scale · Σ + shift + residual, low, high)`.

    Addresses of float32: `scale` and `shift` one per output channel, `residual` as the output lies; `None` for none.
    """

    scale: int | None
    shift: int | None
    residual: int | None
    low: float
    high: float


def output_size(
    size: Sequence[int],
    kernel: Sequence[int],
    stride: Sequence[int],
    dilation: Sequence[int],
    padding_before: Sequence[int],
    padding_after: Sequence[int],
) -> list[int]:
    """The spatial extents of the output; less than 1 where the kernel does not fit."""
    return [
        (n + before + after - d * (k - 1) - 1) // s + 1
        for n, k, s, d, before, after in zip(size, kernel, stride, dilation, padding_before, padding_after, strict=True)
    ]


class Plan:
    """A layer of known shape on so many threads. Get one from `plan`, which keeps them."""

    def __init__(
        self,
        layout: int,
        batch: int,
        in_channels: int,
        out_channels: int,
        groups: int,
        size: tuple[int, ...],
        kernel: tuple[int, ...],
        stride: tuple[int, ...],
        dilation: tuple[int, ...],
        padding_before: tuple[int, ...],
        padding_after: tuple[int, ...],
        input_pitch: int,
        output_pitch: int,
        threads: int,
        output_padding: tuple[int, ...] | None = None,
        team: int | None = None,
    ) -> None:
        """`output_padding`, where it is given, says that the layer is a transposed convolution, without thresholds.

        `team` is the address of the threads that run the tasks of calls (`Team` in `native/src/lib.rs`), or `None` for those of
        the library.
        """
        rank = len(size)
        desc = structs["convrelu_desc"]()
        numbers = [batch, in_channels, out_channels, *size, *kernel]
        call(f"convrelu_conv{rank}d_init", ctypes.byref(desc), ctypes.sizeof(desc), *numbers)
        desc.layout, desc.groups = layout, groups
        desc.input_pitch, desc.output_pitch = input_pitch, output_pitch
        for axis in range(rank):
            desc.stride[axis], desc.dilation[axis] = stride[axis], dilation[axis]
            desc.padding_before[axis], desc.padding_after[axis] = padding_before[axis], padding_after[axis]
        if output_padding is not None:
            desc.kind = constants["CONVRELU_TRANSPOSED"]
            for axis in range(rank):
                desc.output_padding[axis] = output_padding[axis]
        self._plan = structs["convrelu_plan"]()
        automatic = constants["CONVRELU_ISA_AUTO"]
        call("convrelu_plan_init", ctypes.byref(self._plan), ctypes.sizeof(self._plan), ctypes.byref(desc), automatic)
        call("convrelu_plan_set_threads", ctypes.byref(self._plan), threads)
        lens = new("convrelu_lens")
        call("convrelu_plan_lens", ctypes.byref(self._plan), ctypes.byref(lens))
        self.input, self.output = int(lens.input), int(lens.output)
        self.weight, self.thresholds, self.bias = int(lens.weight), int(lens.thresholds), int(lens.bias)
        self.output_shape = (batch, out_channels, *list(lens.output_size)[3 - rank :])
        self._forward_len = self._workspace_len("CONVRELU_FORWARD")
        self._backward_input_len = self._workspace_len("CONVRELU_BACKWARD_INPUT")
        self._backward_weight_len = self._workspace_len("CONVRELU_BACKWARD_WEIGHT")
        self._address = ctypes.addressof(self._plan)
        self._parallel_for = _library.parallel_for if threads > 1 else None
        self._team = team

    def _workspace_len(self, name: str) -> int:
        length = ctypes.c_size_t()
        call("convrelu_workspace_len", ctypes.byref(self._plan), constants[name], ctypes.byref(length))
        return length.value

    def forward(
        self,
        input: int,
        weight: int,
        thresholds: int | None,
        threshold: float,
        bias: int | None,
        output: int,
        epilogue: Epilogue | None = None,
    ) -> None:
        """Writes the output. All but `threshold` are addresses of float32; it counts where there are no `thresholds`."""
        args = _FORWARD.from_buffer_copy(_FORWARD_ARGS)
        args.input.data, args.input.len = input, self.input
        args.weight.data, args.weight.len = weight, self.weight
        self._set_thresholds(args, thresholds, threshold)
        if bias is not None:
            args.bias.data, args.bias.len = bias, self.bias
        args.output.data, args.output.len = output, self.output
        args.workspace.data, args.workspace.len = _workspaces.get(self._forward_len)
        if epilogue is not None:
            ending = _EPILOGUE.from_buffer_copy(_NO_EPILOGUE)
            if epilogue.scale is not None:
                ending.scale.data, ending.scale.len = epilogue.scale, self.bias
            if epilogue.shift is not None:
                ending.shift.data, ending.shift.len = epilogue.shift, self.bias
            if epilogue.residual is not None:
                ending.residual.data, ending.residual.len = epilogue.residual, self.output
            ending.low, ending.high = epilogue.low, epilogue.high
            # The structure lives until the call below has returned.
            args.epilogue = ctypes.addressof(ending)
        self._call(library.convrelu_forward, args)

    def backward_input(
        self,
        input: int,
        weight: int,
        thresholds: int | None,
        threshold: float,
        grad_output: int,
        grad_input: int | None,
        grad_thresholds: int | None,
    ) -> None:
        """Writes the gradients of the input and of the thresholds, or one of them (`None`: not wanted)."""
        args = _BACKWARD_INPUT.from_buffer_copy(_BACKWARD_INPUT_ARGS)
        args.input.data, args.input.len = input, self.input
        args.weight.data, args.weight.len = weight, self.weight
        self._set_thresholds(args, thresholds, threshold)
        args.grad_output.data, args.grad_output.len = grad_output, self.output
        if grad_input is not None:
            args.grad_input.data, args.grad_input.len = grad_input, self.input
        if grad_thresholds is not None:
            args.grad_thresholds.data = grad_thresholds
            args.grad_thresholds.len = 1 if thresholds is None else self.thresholds
        args.workspace.data, args.workspace.len = _workspaces.get(self._backward_input_len)
        self._call(library.convrelu_backward_input, args)

    def backward_weight(
        self,
        input: int,
        thresholds: int | None,
        threshold: float,
        grad_output: int,
        grad_weight: int | None,
        grad_bias: int | None,
    ) -> None:
        """Writes the gradients of the weight and of the bias, or one of them (`None`: not wanted)."""
        args = _BACKWARD_WEIGHT.from_buffer_copy(_BACKWARD_WEIGHT_ARGS)
        args.input.data, args.input.len = input, self.input
        self._set_thresholds(args, thresholds, threshold)
        args.grad_output.data, args.grad_output.len = grad_output, self.output
        if grad_weight is not None:
            args.grad_weight.data, args.grad_weight.len = grad_weight, self.weight
        if grad_bias is not None:
            args.grad_bias.data, args.grad_bias.len = grad_bias, self.bias
        args.workspace.data, args.workspace.len = _workspaces.get(self._backward_weight_len)
        self._call(library.convrelu_backward_weight, args)

    def _set_thresholds(self, args: ctypes.Structure, thresholds: int | None, threshold: float) -> None:
        if thresholds is not None:
            args.threshold_kind = _PER_TAP
            args.thresholds.data, args.thresholds.len = thresholds, self.thresholds
        elif threshold == -math.inf:
            args.threshold_kind = _LINEAR
        else:
            args.threshold_kind, args.threshold = _UNIFORM, threshold

    def _call(self, function: ctypes._NamedFuncPointer, args: ctypes.Structure) -> None:
        args.parallel_for, args.context = self._parallel_for, self._team
        if function(self._address, ctypes.addressof(args), None) != 0:
            # Once more, for the sentence: calls that succeed need no room for one.
            error = _Error(struct_size=_ERROR_SIZE)
            if function(self._address, ctypes.addressof(args), ctypes.byref(error)) != 0:
                raise ValueError(_library.message(error))


_EPILOGUE = structs["convrelu_epilogue"]
_FORWARD = structs["convrelu_forward_args"]
_BACKWARD_INPUT = structs["convrelu_backward_input_args"]
_BACKWARD_WEIGHT = structs["convrelu_backward_weight_args"]
_NO_EPILOGUE = initialised("convrelu_epilogue")
_FORWARD_ARGS = initialised("convrelu_forward_args")
_BACKWARD_INPUT_ARGS = initialised("convrelu_backward_input_args")
_BACKWARD_WEIGHT_ARGS = initialised("convrelu_backward_weight_args")

#: `plan(layout, batch, …)`: the arguments of `Plan`; the last 4096 are kept.
plan = functools.lru_cache(maxsize=4096)(Plan)


def threads() -> int:
    """Threads for whoever does not say how many: as many as this process may run on, at most 128."""
    count = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, min(count, 128))
