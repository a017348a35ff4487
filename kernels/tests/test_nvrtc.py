"""CUDA C++ at run time: the cache on disk, the errors, and on a GPU the result."""

import warnings

import numpy
import pytest
import torch
from planish_kernels.runtime import disk_cache, nvrtc
from planish_kernels.runtime.capability import nvrtc_importable
from planish_kernels.runtime.disk_cache import CacheWarning, cache_dir, read_cached, write_cached
from planish_kernels.runtime.nvrtc import CompileError, Cubin, compile_cubin, load_kernel
from planish_kernels.runtime.support import YES, no

SOURCE = """
template <class T, int FACTOR> __global__ void scale(T* x, double by, long long n) {
    long long i = blockIdx.x * (long long) blockDim.x + threadIdx.x;
    if (i < n) x[i] = T(x[i] * by * FACTOR);
}
"""


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("PLANISH_CACHE_DIR", str(tmp_path / "cache"))


@pytest.fixture
def compilations(monkeypatch):
    """A stand-in for the compiler that records what it is asked to do."""
    asked = []

    def compile_once(source, kernels, name, arch, options):
        asked.append((source, arch, options))
        return Cubin(f"{source}{arch}".encode(), arch, {kernel: f"_Z{kernel}" for kernel in kernels})

    monkeypatch.setattr(nvrtc, "_compile", compile_once)
    monkeypatch.setattr(nvrtc, "nvrtc_importable", lambda: YES)
    monkeypatch.setattr(nvrtc, "_versions", lambda: ["nvrtc 13.0"])
    monkeypatch.setattr(nvrtc, "_cuda_headers", lambda: ())
    return asked


def test_the_second_compilation_is_read_from_disk(compilations):
    first = compile_cubin("a", ["k"], arch="sm_90a")
    assert compile_cubin("a", ["k"], arch="sm_90a") == first
    assert len(compilations) == 1


def test_whatever_changes_the_code_changes_the_key(compilations, monkeypatch):
    compile_cubin("a", ["k"], arch="sm_90a")
    compile_cubin("b", ["k"], arch="sm_90a")
    compile_cubin("a", ["l"], arch="sm_90a")
    compile_cubin("a", ["k"], arch="sm_80")
    compile_cubin("a", ["k"], arch="sm_90a", defines={"N": 1})
    compile_cubin("a", ["k"], arch="sm_90a", fast_math=True)
    monkeypatch.setattr(nvrtc, "_versions", lambda: ["nvrtc 13.1"])
    compile_cubin("a", ["k"], arch="sm_90a")
    assert len(compilations) == 7


def test_a_damaged_entry_is_compiled_again(compilations):
    first = compile_cubin("a", ["k"], arch="sm_90a")
    (entry,) = cache_dir("nvrtc").iterdir()
    content = bytearray(entry.read_bytes())
    content[-7] ^= 1
    entry.write_bytes(content)
    assert compile_cubin("a", ["k"], arch="sm_90a") == first
    entry.write_bytes(content[:20])
    assert compile_cubin("a", ["k"], arch="sm_90a") == first
    assert len(compilations) == 3


def test_a_cache_that_cannot_be_written_warns_once_and_is_no_error(compilations, tmp_path, monkeypatch):
    (tmp_path / "file").write_text("in the way")
    monkeypatch.setenv("PLANISH_CACHE_DIR", str(tmp_path / "file"))
    monkeypatch.setattr(disk_cache, "_UNWRITABLE", set())
    with pytest.warns(CacheWarning, match="PLANISH_CACHE_DIR"):
        compile_cubin("a", ["k"], arch="sm_90a")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        compile_cubin("b", ["k"], arch="sm_90a")


def test_a_failed_write_leaves_nothing_behind(tmp_path, monkeypatch):
    monkeypatch.setattr(disk_cache, "_UNWRITABLE", set())

    def full(source, target):
        raise OSError("No space left on device")

    monkeypatch.setattr(disk_cache.os, "replace", full)
    with pytest.warns(CacheWarning, match="No space left"):
        assert not write_cached(tmp_path / "entry", b"payload")
    assert list(tmp_path.iterdir()) == []
    assert read_cached(tmp_path / "entry") is None


def test_without_the_compiler_the_error_says_what_to_install(monkeypatch):
    monkeypatch.setattr(nvrtc, "nvrtc_importable", lambda: no("cuda-core is not installed (pip install it)"))
    with pytest.raises(RuntimeError, match=r"k\.cu.*cuda-core is not installed"):
        compile_cubin(SOURCE, ["scale<float, 2>"], arch="sm_90a", name="k.cu")
    with pytest.raises(ValueError, match="at least one kernel"):
        compile_cubin(SOURCE, [], arch="sm_90a")


@pytest.mark.skipif(not nvrtc_importable(), reason=f"NVRTC: {nvrtc_importable().reason}")
def test_the_real_compiler_instantiates_templates_and_reports_errors():
    cubin = compile_cubin(SOURCE, ["scale<float, 3>"], arch="sm_90a")
    assert cubin.code[:4] == b"\x7fELF"
    assert cubin.symbols["scale<float, 3>"].startswith("_Z5scale")
    with pytest.raises(CompileError, match=r'bad\.cu\(1\): error: identifier "y" is undefined') as caught:
        compile_cubin("__global__ void k(float* x) { y = 1; }", ["k"], arch="sm_90a", name="bad.cu")
    assert caught.value.source.startswith("__global__")


@pytest.mark.gpu
def test_a_kernel_runs_on_the_current_stream(gpu):
    if not nvrtc_importable():
        pytest.skip(nvrtc_importable().reason)
    kernel = load_kernel(SOURCE, "scale<float, 3>")
    assert load_kernel(SOURCE, "scale<float, 3>") is kernel
    x = torch.arange(1000.0, device=gpu)
    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        kernel.launch((4,), (256,), x, 0.5, numpy.int64(1000))
    torch.cuda.current_stream().wait_stream(side)
    assert torch.equal(x, torch.arange(1000.0, device=gpu) * 1.5)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        kernel.launch((4,), (256,), x, 2.0, 1000)
    graph.replay()
    torch.cuda.synchronize()
    assert torch.equal(x, torch.arange(1000.0, device=gpu) * 9)
