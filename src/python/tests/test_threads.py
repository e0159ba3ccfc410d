"""On which threads calls run: PyTorch's, or those of the library; nested, after `fork`, with other numbers of them."""

from __future__ import annotations

import ctypes
import functools
import multiprocessing
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from convrelu import _layer
from convrelu.torch import ConvReLU2d, _threads, functional

needs_openmp = pytest.mark.skipif(_threads.TEAM is None, reason="PyTorch's OpenMP was not found")
TASKS = 7


@functools.cache
def layer() -> tuple[torch.Tensor, ...]:
    """Drawn once: threads that draw at the same time share PyTorch's generator, and get other numbers."""
    torch.manual_seed(3)
    return torch.randn(8, 32, 24, 24), torch.randn(32, 32, 3, 3), torch.randn(32, 3, 3), torch.randn(32)


def planned(threads: int, team: int | None) -> torch.Tensor:
    """The layer's output by a plan for so many tasks."""
    x, w, theta, b = layer()
    axes = ((24, 24), (3, 3), (1, 1), (1, 1), (1, 1), (1, 1))
    plan = _layer.plan(_layer.NCHW, 8, 32, 32, 1, *axes, 0, 0, threads, team=team)
    y = torch.full(plan.output_shape, torch.nan)
    plan.forward(x.data_ptr(), w.data_ptr(), theta.data_ptr(), 0.0, b.data_ptr(), y.data_ptr())
    return y


def run(script: str, **environment: str) -> str:
    """What a Python program prints."""
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, timeout=300, env={**os.environ, **environment}
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.skipif(sys.platform != "linux", reason="tested on Linux only")
def test_openmp_is_found() -> None:
    """A pool of our own beside it would make calls slow; no other test would fail."""
    if "OpenMP" not in torch.__config__.parallel_info().split("ATen parallel backend:")[1]:
        pytest.skip("this PyTorch does not compute with OpenMP")
    assert _threads.TEAM is not None


@pytest.mark.skipif(not Path("/proc/self/task").is_dir(), reason="names of threads are read from /proc")
def test_which_threads_run() -> None:
    """A layer of PyTorch's starts no thread of the library; NumPy's does."""
    script = """
import pathlib, torch, convrelu.numpy
from convrelu.torch import functional
torch.set_num_threads(2)
x, w = torch.randn(8, 32, 24, 24), torch.randn(32, 32, 3, 3)
def names():
    return sorted(path.read_text().strip() for path in pathlib.Path("/proc/self/task").glob("*/comm"))
before = len(names())
functional.conv_relu(x, w, 0.25, padding=1)
torch_alone = names()
convrelu.numpy.conv_relu(x.numpy(), w.numpy(), 0.25, padding=1, threads=2)
print(any("convrelu" in name for name in torch_alone), len(torch_alone) > before, sum("convrelu" in name for name in names()))
"""
    if _threads.TEAM is None:
        pytest.skip("PyTorch's OpenMP was not found")
    # It computed with no thread but the calling one until then, so that its team is new.
    assert run(script).split()[0::2] == ["False", "1"]


@needs_openmp
@pytest.mark.parametrize("threads", [1, 2, 5])
def test_every_task_runs_whatever_the_team_is(threads: int) -> None:
    """A call of seven tasks on teams of one, two and five threads."""
    before = torch.get_num_threads()
    expected = planned(1, None)
    try:
        torch.set_num_threads(threads)
        assert torch.equal(planned(TASKS, _threads.TEAM), expected)
        assert torch.equal(functional.conv_relu(*layer(), padding=1), expected)
    finally:
        torch.set_num_threads(before)
    assert torch.equal(planned(TASKS, None), expected)


@needs_openmp
def test_inside_a_parallel_region() -> None:
    """Each thread of a region of OpenMP's makes a call: the teams of these have one thread."""
    expected, found = planned(1, None), []
    region_type = ctypes.CFUNCTYPE(None, ctypes.c_void_p)

    @region_type
    def region(_: object) -> None:
        found.append(torch.equal(planned(TASKS, _threads.TEAM), expected))

    parallel = ctypes.CFUNCTYPE(None, region_type, ctypes.c_void_p, ctypes.c_uint, ctypes.c_uint)(_threads._openmp_parallel)
    parallel(region, None, 3, 0)
    assert found == [True] * len(found) and len(found) >= 1
    assert torch.equal(planned(TASKS, _threads.TEAM), expected)


@needs_openmp
def test_fewer_threads_than_tasks_by_environment() -> None:
    script = """
import torch
from convrelu.torch import functional
torch.manual_seed(3)
x, w, theta = torch.randn(8, 32, 24, 24), torch.randn(32, 32, 3, 3), torch.randn(32, 3, 3)
torch.set_num_threads(4)
many = functional.conv_relu(x, w, theta, padding=1)
torch.set_num_threads(1)
print(torch.equal(many, functional.conv_relu(x, w, theta, padding=1)))
"""
    limits = {"OMP_THREAD_LIMIT": "2", "OMP_DYNAMIC": "true", "OMP_WAIT_POLICY": "passive"}
    assert run(script, **limits) == "True\n"


def in_child(_: object) -> float:
    """A layer of PyTorch's, without autograd, which PyTorch does not let a child have."""
    torch.set_num_threads(2)
    with torch.no_grad():
        return float(functional.conv_relu(*layer(), padding=1).numpy().sum())


def in_child_of_child(_: object) -> float:
    receiver, sender = multiprocessing.get_context("fork").Pipe(False)
    child = multiprocessing.get_context("fork").Process(target=lambda: sender.send(in_child(None)))
    child.start()
    assert receiver.poll(300), "the grandchild hangs"
    child.join()
    return receiver.recv()


def test_children_of_fork_use_threads_of_their_own() -> None:
    """OpenMP's threads do not exist in a child, and a region there never ends."""
    expected = in_child(None)
    with multiprocessing.get_context("fork").Pool(2) as pool:
        assert pool.map_async(in_child, range(4)).get(timeout=300) == [expected] * 4
    context = multiprocessing.get_context("fork")
    receiver, sender = context.Pipe(False)
    child = context.Process(target=lambda: sender.send(in_child_of_child(None)))
    child.start()
    assert receiver.poll(300), "the child hangs"
    assert receiver.recv() == expected
    child.join()
    assert in_child(None) == expected


def test_a_child_of_fork_that_imports_the_package_itself() -> None:
    script = """
import multiprocessing, numpy, torch
def ones(*shape):
    # PyTorch fills no large tensor in a child: it would wait for its threads forever.
    return torch.from_numpy(numpy.ones(shape, numpy.float32))
def work(_):
    from convrelu.torch import functional
    with torch.no_grad():
        return float(functional.conv_relu(ones(8, 32, 24, 24), ones(32, 32, 3, 3), 0.25).numpy().sum())
torch.set_num_threads(2)
torch.randn(1 << 20).exp_()
with multiprocessing.get_context("fork").Pool(1) as pool:
    print(pool.map_async(work, range(2)).get(timeout=300))
"""
    assert run(script) == f"{[8 * 32 * 22 * 22 * 288.0] * 2}\n"


def test_spawned_children_use_openmp(tmp_path) -> None:
    script = """
import multiprocessing
def work(_):
    from convrelu.torch import _threads
    return _threads.TEAM is not None
if __name__ == "__main__":
    from convrelu.torch import _threads
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        print(pool.map_async(work, range(1)).get(timeout=300) == [_threads.TEAM is not None])
"""
    program = tmp_path / "program.py"
    program.write_text(script)
    done = subprocess.run([sys.executable, program], capture_output=True, text=True, timeout=300)
    assert done.stdout == "True\n", done.stderr


def test_backward_in_a_thread_of_autograd() -> None:
    """A backward pass inside another runs on one of autograd's threads when they are nested deeply."""
    module = ConvReLU2d(32, 32, 3, padding=1, threshold_init=("gaussian", 0.5))
    x = layer()[0]

    def reentrant(depth: int) -> torch.Tensor:
        class Nest(torch.autograd.Function):
            @staticmethod
            def forward(ctx, leaf):
                return leaf.clone()

            @staticmethod
            def backward(ctx, grad):
                if depth:
                    with torch.enable_grad():
                        reentrant(depth - 1).backward()
                else:
                    with torch.enable_grad():
                        module(x).square().mean().backward()
                return grad

        return Nest.apply(torch.ones(1, requires_grad=True)).sum()

    module(x).square().mean().backward()
    expected = [parameter.grad.clone() for parameter in module.parameters()]
    module.zero_grad()
    reentrant(70).backward()
    for parameter, gradient in zip(module.parameters(), expected, strict=True):
        assert torch.equal(parameter.grad, gradient)
