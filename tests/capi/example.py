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
Size3 = ctypes.c_size_t * 3


class Desc(ctypes.Structure):
    _fields_ = [("struct_size", ctypes.c_size_t), ("rank", ctypes.c_uint32), ("layout", ctypes.c_uint32)]
    _fields_ += [(name, ctypes.c_size_t) for name in ("batch", "in_channels", "out_channels", "groups")]
    _fields_ += [(name, Size3) for name in ("size", "kernel", "stride", "dilation", "padding_before", "padding_after")]
    _fields_ += [("input_pitch", ctypes.c_size_t), ("output_pitch", ctypes.c_size_t)]
    _fields_ += [("reserved", ctypes.c_size_t * 2)]


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


def arguments(buffers, numbers, reserved):
    class Arguments(ctypes.Structure):
        _fields_ = [("struct_size", ctypes.c_size_t)] + [(name, Buffer) for name in buffers]
        _fields_ += [("parallel_for", ParallelFor), ("context", ctypes.c_void_p)]
        _fields_ += [(name, ctypes.c_float if name == "threshold" else ctypes.c_uint32) for name in numbers]
        _fields_ += [("reserved", ctypes.c_uint32 * reserved)]

    return Arguments


Forward = arguments(
    ["input", "weight", "thresholds", "bias", "output", "workspace"], ["weight_kind", "threshold_kind", "threshold"], 5
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


def main():
    library = Library(sys.argv[1] if len(sys.argv) > 1 else "target/release/libconvrelu.so")
    rng = np.random.default_rng(1)
    worst = 0.0
    for case in range(40):
        n, c, d = rng.integers(1, 4), rng.integers(1, 20), rng.integers(1, 20)
        gap, first = int(rng.integers(0, 9)), int(rng.integers(0, 5))
        h, w_, k, stride, padding = rng.integers(5, 14), rng.integers(5, 14), rng.integers(1, 4), rng.integers(1, 3), rng.integers(0, 2)
        desc, plan = Desc(), Plan()
        numbers = [ctypes.c_size_t(int(number)) for number in (n, c, d, h, w_, k, k)]
        library.conv2d_init(desc, ctypes.c_size_t(ctypes.sizeof(Desc)), *numbers)
        for axis in range(2):
            desc.stride[axis] = int(stride)
            desc.padding_before[axis] = desc.padding_after[axis] = int(padding)
        desc.input_pitch = int(c * h * w_) + gap  # images of a tensor with more in them
        library.plan_init(plan, ctypes.c_size_t(ctypes.sizeof(Plan)), desc, ctypes.c_uint32(0))
        library.plan_set_threads(plan, ctypes.c_size_t(3))
        lens = Lens(struct_size=ctypes.sizeof(Lens))
        library.plan_lens(plan, lens)

        def values(*shape):
            return rng.standard_normal(shape).astype(np.float32)

        def workspace(number):
            length = ctypes.c_size_t()
            library.workspace_len(plan, ctypes.c_uint32(number), ctypes.byref(length))
            return np.full(max(length.value, 1), np.nan, np.float32)

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
            given = {name: Buffer(v) if isinstance(v, np.ndarray) else v for name, v in fields.items()}
            args = structure()
            getattr(library, function + "_args_init")(args, ctypes.c_size_t(ctypes.sizeof(structure)))
            args.threshold_kind = THRESHOLDS_PER_TAP
            for name, value in given.items():
                setattr(args, name, value)
            getattr(library, function)(plan, args)

        run("forward", Forward, input=wide_x, weight=weight, thresholds=theta, bias=b, output=y, workspace=workspace(0))
        packed = np.zeros(lens.packed_weight, np.float32)
        library.pack_weight(plan, ctypes.c_uint32(0), Buffer(weight), Buffer(packed))
        again = np.full_like(y, np.nan)
        run("forward", Forward, input=wide_x, weight=packed, weight_kind=1, thresholds=theta, bias=b, output=again,
            workspace=workspace(1), parallel_for=parallel_for)  # fmt: skip
        assert np.array_equal(y, again), "a packed weight gives the same bits, and so do threads"
        run("backward_input", BackwardInput, input=wide_x, weight=weight, thresholds=theta, grad_output=g,
            grad_input=wide_dx, grad_thresholds=dtheta, workspace=workspace(2), parallel_for=parallel_for)  # fmt: skip
        db[:] = 1
        run("backward_weight", BackwardWeight, input=wide_x, thresholds=theta, grad_output=g, grad_weight=dw, grad_bias=db,
            grad_bias_accumulation=1, workspace=workspace(4), parallel_for=parallel_for)  # fmt: skip
        db -= 1
        for ours, expected in zip((y, dx, dtheta, dw, db), numpy_layer(x, weight, theta, b, g, stride, padding)):
            error = np.abs(ours - expected).max() / max(np.abs(expected).max(), 1e-3)
            assert error < 1e-5, f"case {case}: {error}"
            worst = max(worst, error)
    try:
        run("forward", Forward, input=wide_x, weight=weight, thresholds=theta, bias=b, output=y[:1, :1], workspace=workspace(0))
        raise AssertionError("a short output was accepted")
    except ValueError as error:
        print("refused:", error)
    assert asked and all(2 <= tasks <= 3 for tasks in asked), "layers that pay several threads"
    print(f"40 layers, every pass: largest error {worst:.1e} of the largest value")


if __name__ == "__main__":
    main()
