"""The C interface from Python: every pass of random layers, with numpy and ctypes, against numpy's own sums in float64.

    cargo rustc --release --no-default-features --features capi --crate-type cdylib
    python tests/capi/example.py target/release/libconvrelu.so
"""

import concurrent.futures
import ctypes
import itertools
import sys

import numpy as np

THRESHOLDS_PER_TAP = 1
TRANSPOSED = 1
ABI = 2
Size3 = ctypes.c_size_t * 3


class Desc(ctypes.Structure):
    _fields_ = [("struct_size", ctypes.c_size_t), ("rank", ctypes.c_uint32), ("layout", ctypes.c_uint32)]
    _fields_ += [(name, ctypes.c_size_t) for name in ("batch", "in_channels", "out_channels", "groups")]
    _fields_ += [(name, Size3) for name in ("size", "kernel", "stride", "dilation", "padding_before", "padding_after")]
    _fields_ += [("output_padding", Size3), ("input_pitch", ctypes.c_size_t), ("output_pitch", ctypes.c_size_t)]
    _fields_ += [("kind", ctypes.c_uint32), ("reserved", ctypes.c_uint32 * 7)]


class Plan(ctypes.Structure):
    _fields_ = [("struct_size", ctypes.c_size_t), ("magic", ctypes.c_uint32), ("isa", ctypes.c_uint32)]
    _fields_ += [("threads", ctypes.c_size_t), ("desc", Desc), ("reserved", ctypes.c_size_t * 4)]


class Lens(ctypes.Structure):
    _fields_ = [("struct_size", ctypes.c_size_t)]
    _fields_ += [(name, ctypes.c_size_t) for name in ("input", "output", "weight", "thresholds", "bias")]
    _fields_ += [(name, ctypes.c_size_t) for name in ("packed_weight", "packed_weight_transposed")]
    _fields_ += [("output_size", Size3), ("reserved", ctypes.c_size_t * 4)]


class Buffer(ctypes.Structure):
    _fields_ = [("data", ctypes.POINTER(ctypes.c_float)), ("len", ctypes.c_size_t)]

    def __init__(self, array=None):
        if array is None:
            super().__init__()
        else:
            assert array.dtype == np.float32 and array.flags["C_CONTIGUOUS"]
            super().__init__(array.ctypes.data_as(ctypes.POINTER(ctypes.c_float)), array.size)
            self.array = array  # keeps it alive


Task = ctypes.CFUNCTYPE(None, ctypes.c_void_p, ctypes.c_size_t)
ParallelFor = ctypes.CFUNCTYPE(None, ctypes.c_void_p, ctypes.c_size_t, Task, ctypes.c_void_p)
pool = concurrent.futures.ThreadPoolExecutor()
asked = []


@ParallelFor
def parallel_for(_context, tasks, task, task_context):
    """Tasks of a call on threads of Python's: ctypes gives up the interpreter's lock while they compute."""
    asked.append(tasks)
    list(pool.map(lambda index: task(task_context, index), range(tasks)))


class Epilogue(ctypes.Structure):
    _fields_ = [("struct_size", ctypes.c_size_t)] + [(name, Buffer) for name in ("scale", "shift", "residual")]
    _fields_ += [("output_accumulation", ctypes.c_uint32), ("low", ctypes.c_float), ("high", ctypes.c_float)]
    _fields_ += [("reserved", ctypes.c_uint32 * 5)]


def arguments(buffers, numbers, reserved, pointers=()):
    class Arguments(ctypes.Structure):
        _fields_ = [("struct_size", ctypes.c_size_t)] + [(name, Buffer) for name in buffers]
        _fields_ += [(name, ctypes.POINTER(kind)) for name, kind in pointers]
        _fields_ += [("parallel_for", ParallelFor), ("context", ctypes.c_void_p)]
        _fields_ += [(name, ctypes.c_float if name == "threshold" else ctypes.c_uint32) for name in numbers]
        _fields_ += [("reserved", ctypes.c_uint32 * reserved)]

    return Arguments


Forward = arguments(
    ["input", "weight", "thresholds", "bias", "output", "workspace"],
    ["weight_kind", "threshold_kind", "threshold"],
    5,
    [("epilogue", Epilogue)],
)
BackwardInput = arguments(
    ["input", "weight", "thresholds", "grad_output", "grad_input", "grad_thresholds", "workspace"],
    ["weight_kind", "threshold_kind", "threshold", "grad_input_accumulation", "grad_thresholds_accumulation"],
    5,
)
BackwardWeight = arguments(
    ["input", "thresholds", "grad_output", "grad_weight", "grad_bias", "workspace"],
    ["threshold_kind", "threshold", "grad_weight_accumulation", "grad_bias_accumulation"],
    4,
)


class Error(ctypes.Structure):
    _fields_ = [("struct_size", ctypes.c_size_t), ("status", ctypes.c_uint32), ("argument", ctypes.c_uint32)]
    _fields_ += [("values", Size3), ("reserved", ctypes.c_size_t * 2)]


class Library:
    def __init__(self, path):
        self.library = ctypes.CDLL(path)

    def __getattr__(self, name):
        function = getattr(self.library, "convrelu_" + name)

        def call(*values):
            error = Error(struct_size=ctypes.sizeof(Error))
            values = [ctypes.byref(v) if isinstance(v, ctypes.Structure) and not isinstance(v, Buffer) else v for v in values]
            if function(*values, ctypes.byref(error)) != 0:
                message = ctypes.create_string_buffer(200)
                self.library.convrelu_error_message(ctypes.byref(error), message, ctypes.c_size_t(200), None)
                raise ValueError(message.value.decode())

        return call


def numpy_layer(x, w, theta, b, g, stride, padding):
    """Eq. 8 and its gradients (eq. 5, 6), NCHW, in float64."""
    x, w, theta, b, g = (array.astype(np.float64) for array in (x, w, theta, b, g))
    padded = np.pad(x, [(0, 0), (0, 0), (padding, padding), (padding, padding)])
    dx, dtheta, dw = np.zeros_like(padded), np.zeros_like(theta), np.zeros_like(w)
    y = np.zeros_like(g) + b[:, None, None]
    for i, j in itertools.product(range(w.shape[2]), range(w.shape[3])):
        rows = slice(i, i + stride * (g.shape[2] - 1) + 1, stride)
        columns = slice(j, j + stride * (g.shape[3] - 1) + 1, stride)
        at = theta[:, i, j][:, None, None]
        taps = padded[:, :, rows, columns]
        active = np.where(taps > at, taps, at)
        y += np.einsum("dc,nchw->ndhw", w[:, :, i, j], active)
        reach = np.einsum("dc,ndhw->nchw", w[:, :, i, j], g)
        dx[:, :, rows, columns] += np.where(taps > at, reach, 0)
        dtheta[:, i, j] += np.where(taps > at, 0, reach).sum((0, 2, 3))
        dw[:, :, i, j] += np.einsum("ndhw,nchw->dc", g, active)
    inside = slice(padding, -padding or None)
    return y, dx[:, :, inside, inside], dtheta, dw, g.sum((0, 2, 3))


def numpy_transposed(x, w, b, g, stride, padding):
    """A transposed convolution and its gradients, NCHW, in float64."""
    x, w, b, g = (array.astype(np.float64) for array in (x, w, b, g))
    # With room for what is cut off; what is appended lies within.
    spread = np.pad(np.zeros_like(g), [(0, 0), (0, 0), (padding, padding + w.shape[2]), (padding, padding + w.shape[3])])
    wide_g = np.pad(g, [(0, 0), (0, 0), (padding, padding + w.shape[2]), (padding, padding + w.shape[3])])
    dx, dw = np.zeros_like(x), np.zeros_like(w)
    for i, j in itertools.product(range(w.shape[2]), range(w.shape[3])):
        rows = slice(i, i + stride * (x.shape[2] - 1) + 1, stride)
        columns = slice(j, j + stride * (x.shape[3] - 1) + 1, stride)
        spread[:, :, rows, columns] += np.einsum("cd,nchw->ndhw", w[:, :, i, j], x)
        taps = wide_g[:, :, rows, columns]
        dx += np.einsum("cd,ndhw->nchw", w[:, :, i, j], taps)
        dw[:, :, i, j] += np.einsum("nchw,ndhw->cd", x, taps)
    y = spread[:, :, padding : padding + g.shape[2], padding : padding + g.shape[3]] + b[:, None, None]
    return y, dx, dw, g.sum((0, 2, 3))


def planned(library, transposed, numbers, stride, padding, output_padding=0, gap=0):
    """A plan for at most three tasks per call, and the lengths of its tensors."""
    desc, plan, lens = Desc(), Plan(), Lens(struct_size=ctypes.sizeof(Lens))
    numbers = [ctypes.c_size_t(int(number)) for number in numbers]
    library.conv2d_init(desc, ctypes.c_size_t(ctypes.sizeof(Desc)), *numbers)
    desc.kind = TRANSPOSED if transposed else 0
    for axis in range(2):
        desc.stride[axis] = int(stride)
        desc.padding_before[axis] = desc.padding_after[axis] = int(padding)
        desc.output_padding[axis] = int(output_padding)
    # Images of a tensor with more in them.
    desc.input_pitch = gap and desc.in_channels * desc.size[0] * desc.size[1] + gap
    library.plan_init(plan, ctypes.c_size_t(ctypes.sizeof(Plan)), desc, ctypes.c_uint32(0))
    library.plan_set_threads(plan, ctypes.c_size_t(3))
    library.plan_lens(plan, lens)
    return plan, lens


def workspace_of(library, plan, number):
    length = ctypes.c_size_t()
    library.workspace_len(plan, ctypes.c_uint32(number), ctypes.byref(length))
    return np.full(max(length.value, 1), np.nan, np.float32)


def call(library, plan, function, structure, **fields):
    given = {name: Buffer(v) if isinstance(v, np.ndarray) else v for name, v in fields.items()}
    args = structure()
    getattr(library, function + "_args_init")(args, ctypes.c_size_t(ctypes.sizeof(structure)))
    for name, value in given.items():
        setattr(args, name, value)
    getattr(library, function)(plan, args)


def relative(ours, expected):
    return np.abs(ours - expected).max() / max(np.abs(expected).max(), 1e-3)


def transposed_layers(library, rng):
    """Every pass of random transposed convolutions."""
    worst = 0.0
    for case in range(20):
        n, c, d, h, w_, k = (int(rng.integers(low, high)) for low, high in ((1, 4), (1, 20), (1, 20), (3, 10), (3, 10), (1, 5)))
        stride, padding = int(rng.integers(1, 4)), int(rng.integers(0, (k + 1) // 2))
        plan, lens = planned(library, True, (n, c, d, h, w_, k, k), stride, padding, rng.integers(0, stride))
        _, height, width = lens.output_size
        x, weight, b, g = (
            rng.standard_normal(shape).astype(np.float32)
            for shape in ((n, c, h, w_), (c, d, k, k), (d,), (n, d, height, width))
        )
        assert (x.size, weight.size, b.size, g.size, 0) == (lens.input, lens.weight, lens.bias, lens.output, lens.thresholds)
        y, dx, dw, db = (np.full_like(array, np.nan) for array in (g, x, weight, b))
        call(library, plan, "forward", Forward, input=x, weight=weight, bias=b, output=y, parallel_for=parallel_for,
            workspace=workspace_of(library, plan, 0))  # fmt: skip
        packed = np.zeros(lens.packed_weight, np.float32)
        library.pack_weight(plan, ctypes.c_uint32(0), Buffer(weight), Buffer(packed))
        again = np.full_like(y, np.nan)
        call(library, plan, "forward", Forward, input=x, weight=packed, weight_kind=1, bias=b, output=again,
            workspace=workspace_of(library, plan, 1))  # fmt: skip
        assert np.array_equal(y, again)
        dx[:] = 1
        call(library, plan, "backward_input", BackwardInput, weight=weight, grad_output=g, grad_input=dx,
            grad_input_accumulation=1, workspace=workspace_of(library, plan, 2))  # fmt: skip
        dx -= 1
        call(library, plan, "backward_weight", BackwardWeight, input=x, grad_output=g, grad_weight=dw, grad_bias=db,
            workspace=workspace_of(library, plan, 4))  # fmt: skip
        for ours, expected in zip((y, dx, dw, db), numpy_transposed(x, weight, b, g, stride, padding)):
            error = relative(ours, expected)
            assert error < 1e-5, f"transposed case {case}: {error}"
            worst = max(worst, error)
    print(f"20 transposed layers, every pass: largest error {worst:.1e} of the largest value")


def main():
    library = Library(sys.argv[1] if len(sys.argv) > 1 else "target/release/libconvrelu.so")
    abi = ctypes.c_uint32()
    library.abi(ctypes.byref(abi))
    assert abi.value == ABI, "a library of another interface"
    rng = np.random.default_rng(1)
    worst = 0.0
    for case in range(40):
        n, c, d = rng.integers(1, 4), rng.integers(1, 20), rng.integers(1, 20)
        gap, first = int(rng.integers(0, 9)), int(rng.integers(0, 5))
        h, w_, k, stride, padding = rng.integers(5, 14), rng.integers(5, 14), rng.integers(1, 4), rng.integers(1, 3), rng.integers(0, 2)
        plan, lens = planned(library, False, (n, c, d, h, w_, k, k), stride, padding, gap=gap)

        def values(*shape):
            return rng.standard_normal(shape).astype(np.float32)

        def workspace(number):
            return workspace_of(library, plan, number)

        def wide(images):
            """Room for images with gaps between them, as one buffer and as the images in it."""
            pitch = images[0].size + gap
            room = np.full(first + len(images) * pitch, np.nan, np.float32)
            buffer = room[first : first + lens.input]
            inside = np.lib.stride_tricks.as_strided(buffer, images.shape, (4 * pitch, *images.strides[1:]))
            inside[:] = images
            return buffer, inside

        x, weight, theta, b = values(n, c, h, w_), values(d, c, k, k), values(c, k, k), values(d)
        wide_x, _ = wide(x)
        y = np.full((n, d, lens.output_size[1], lens.output_size[2]), np.nan, np.float32)
        assert (y.size, weight.size, theta.size) == (lens.output, lens.weight, lens.thresholds)
        assert lens.input == x.size + (n - 1) * gap
        g = values(*y.shape)
        dtheta, dw, db = (np.full_like(array, np.nan) for array in (theta, weight, b))
        wide_dx, dx = wide(np.full_like(x, np.nan))

        def run(function, structure, **fields):
            call(library, plan, function, structure, threshold_kind=THRESHOLDS_PER_TAP, **fields)

        run("forward", Forward, input=wide_x, weight=weight, thresholds=theta, bias=b, output=y, workspace=workspace(0))
        packed = np.zeros(lens.packed_weight, np.float32)
        library.pack_weight(plan, ctypes.c_uint32(0), Buffer(weight), Buffer(packed))
        again = np.full_like(y, np.nan)
        run("forward", Forward, input=wide_x, weight=packed, weight_kind=1, thresholds=theta, bias=b, output=again,
            workspace=workspace(1), parallel_for=parallel_for)  # fmt: skip
        assert np.array_equal(y, again), "a packed weight gives the same bits, and so do threads"
        scale, shift, residual = values(d), values(d), values(*y.shape)
        epilogue = Epilogue()
        library.epilogue_init(epilogue, ctypes.c_size_t(ctypes.sizeof(Epilogue)))
        epilogue.scale, epilogue.shift, epilogue.residual = Buffer(scale), Buffer(shift), Buffer(residual)
        epilogue.low, epilogue.high = 0, 6
        ended = np.full_like(y, np.nan)
        run("forward", Forward, input=wide_x, weight=weight, thresholds=theta, bias=b, output=ended, workspace=workspace(0),
            epilogue=ctypes.pointer(epilogue))  # fmt: skip
        apart = y * scale[:, None, None] + shift[:, None, None] + residual
        assert relative(ended, apart.clip(0, 6)) < 1e-5
        run("backward_input", BackwardInput, input=wide_x, weight=weight, thresholds=theta, grad_output=g,
            grad_input=wide_dx, grad_thresholds=dtheta, workspace=workspace(2), parallel_for=parallel_for)  # fmt: skip
        db[:] = 1
        run("backward_weight", BackwardWeight, input=wide_x, thresholds=theta, grad_output=g, grad_weight=dw, grad_bias=db,
            grad_bias_accumulation=1, workspace=workspace(4), parallel_for=parallel_for)  # fmt: skip
        db -= 1
        for ours, expected in zip((y, dx, dtheta, dw, db), numpy_layer(x, weight, theta, b, g, stride, padding)):
            error = relative(ours, expected)
            assert error < 1e-5, f"case {case}: {error}"
            worst = max(worst, error)
    try:
        run("forward", Forward, input=wide_x, weight=weight, thresholds=theta, bias=b, output=y[:1, :1], workspace=workspace(0))
        raise AssertionError("a short output was accepted")
    except ValueError as error:
        print("refused:", error)
    assert asked and all(2 <= tasks <= 3 for tasks in asked), "layers that pay several threads"
    print(f"40 layers, every pass: largest error {worst:.1e} of the largest value")
    transposed_layers(library, rng)


if __name__ == "__main__":
    main()
