"""The unbiased 2:4 estimator: known answers of the generator, exact expectations, statistics, backends."""

from __future__ import annotations

import pytest
import torch
from planish_kernels.mask24 import unpack_mask
from planish_kernels.mvue24 import inclusion_probabilities, mvue24, mvue24_pack, planes
from planish_kernels.mvue24.op import mvue24_op
from planish_kernels.mvue24.reference import (
    approximate_inclusion_probabilities,
    sample_pairs,
    sample_systematic,
)
from planish_kernels.philox import group_uniforms, philox
from planish_kernels.runtime.op import KernelUnavailable
from torch import Tensor

SHAPES = [(4, 1), (3, 5), (64, 64), (67, 33), (130, 129)]


def decode(values: Tensor, bits: Tensor, tokens: int) -> Tensor:
    """Dense ``[tokens, channels]`` of a packed transpose."""
    mask = unpack_mask(bits, values.shape[1] * 2)
    dense = torch.zeros(mask.shape, dtype=values.dtype)
    dense[mask] = values.reshape(-1)
    return dense[:, :tokens].t()


def sample_groups(count: int, seed: int = 0) -> Tensor:
    """float64 ``[count, 4]``: normal and heavy-tailed groups, groups of small integers (ties and zeros)."""
    generator = torch.Generator().manual_seed(seed)
    normal = torch.randn(count, 4, generator=generator, dtype=torch.float64)
    heavy = normal**5
    small = torch.randint(-3, 4, (count, 4), generator=generator).double()
    return torch.stack((normal, heavy, small)).view(-1, 4)[torch.randperm(3 * count, generator=generator)[:count]]


# The generator.


@pytest.mark.parametrize(
    ("counter", "key", "expected"),
    [  # Random123 1.14, kat_vectors: philox4x32 10
        ((0, 0, 0, 0), (0, 0), (0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8)),
        ((0xFFFFFFFF,) * 4, (0xFFFFFFFF,) * 2, (0x408F276D, 0x41C83B0E, 0xA20BC7C6, 0x6D5451FD)),
        (
            (0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344),
            (0xA4093822, 0x299F31D0),
            (0xD16CFE09, 0x94FDCCEB, 0x5001E420, 0x24126EA1),
        ),
    ],
)
def test_philox_known_answers(
    counter: tuple[int, ...], key: tuple[int, ...], expected: tuple[int, int, int, int]
) -> None:
    words = philox(tuple(torch.tensor(word) for word in counter), tuple(torch.tensor(word) for word in key))  # type: ignore[arg-type]
    assert tuple(int(word) for word in words) == expected


def test_uniforms_are_uniform_and_do_not_repeat() -> None:
    uniforms = group_uniforms(torch.tensor(5), torch.tensor(9), 999, 101)
    assert uniforms.shape == (999, 101)
    assert uniforms.min() >= 0
    assert uniforms.max() < 1
    # Mean and variance of 100 899 draws, at 5 standard errors (false alarm below 1e-6).
    count = uniforms.numel()
    assert abs(float(uniforms.double().mean()) - 1 / 2) < 5 * (1 / 12 / count) ** 0.5
    assert abs(float(uniforms.double().var()) - 1 / 12) < 5 * (1 / 180 / count) ** 0.5
    assert uniforms.unique().numel() > 0.99 * count


# The estimator, exactly.


def enumerate_systematic(groups: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and total variance of the estimate of each float64 group, integrating over u piece by piece.

    The outcome is constant between the fractional parts of the cumulated probabilities.
    """
    probabilities = inclusion_probabilities(groups)
    cuts = torch.cat((torch.zeros(len(groups), 1, dtype=groups.dtype), probabilities.cumsum(-1) % 1.0), -1)
    cuts = torch.cat((cuts, torch.ones(len(groups), 1, dtype=groups.dtype)), -1).sort(-1).values
    mean, square = torch.zeros_like(groups), torch.zeros(len(groups), dtype=groups.dtype)
    for piece in range(cuts.shape[1] - 1):
        length = cuts[:, piece + 1] - cuts[:, piece]
        _, values = sample_systematic(groups, (cuts[:, piece + 1] + cuts[:, piece]) / 2)
        mean += length.unsqueeze(-1) * values
        square += length * (values - groups).square().sum(-1)
    return mean, square


def test_expectation_is_exact() -> None:
    groups = sample_groups(400)
    mean, variance = enumerate_systematic(groups)
    scale = groups.abs().sum(-1, keepdim=True).clamp(min=1)
    assert ((mean - groups).abs() / scale).max() < 1e-12
    probabilities = inclusion_probabilities(groups)
    a = groups.abs()
    expected = torch.where(a > 0, a.square() * (1 / probabilities.clamp(min=1e-300) - 1), 0).sum(-1)
    assert ((variance - expected).abs() / scale.squeeze(-1).square()).max() < 1e-12


def test_probabilities_are_the_optimum() -> None:
    groups = sample_groups(300)
    groups = groups[(groups != 0).sum(-1) > 2]
    probabilities = inclusion_probabilities(groups)
    assert ((probabilities.sum(-1) - 2).abs() < 1e-12).all()
    assert (probabilities <= 1 + 1e-15).all()
    # Optimality (KKT): a / p is one constant where p < 1, and no greater than a where p = 1.
    ratio = groups.abs() / probabilities
    free = (probabilities < 1 - 1e-9) & (groups != 0)
    highest = torch.where(free, ratio, -torch.inf).amax(-1)
    lowest = torch.where(free, ratio, torch.inf).amin(-1)
    has_free = free.any(-1)
    assert ((highest - lowest)[has_free] <= 1e-9 * highest[has_free]).all()
    saturated = (probabilities >= 1 - 1e-9) & has_free.unsqueeze(-1)
    assert (groups.abs()[saturated] >= (highest * (1 - 1e-8)).unsqueeze(-1).expand_as(groups)[saturated]).all()


def test_biased_samplers_are_caught() -> None:
    """The negative control of the enumeration: keeping the two largest is off by far more than 1e-12."""
    groups = sample_groups(100)
    largest = groups * (groups.abs() >= groups.abs().sort(-1).values[:, 2:3])
    assert (largest - groups).abs().max() > 0.1


def test_approximation_is_unbiased_and_worse() -> None:
    # The pair sampler, integrated in closed form: P(i, j) = t_i t_j / (1 - t_i).
    groups = torch.randn(20000, 4, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    a = groups.abs() + 1.19e-7
    t = a / a.sum(-1, keepdim=True)
    order = t.unsqueeze(-1) * t.unsqueeze(-2) / (1 - t).unsqueeze(-1)
    order = order * (1 - torch.eye(4, dtype=torch.float64))
    probabilities = approximate_inclusion_probabilities(groups)
    torch.testing.assert_close(order.sum(-1) + order.sum(-2), probabilities, rtol=1e-12, atol=1e-12)
    squares = groups.square()
    best = (squares * (1 / inclusion_probabilities(groups) - 1)).sum(-1)
    worse = (squares * (1 / probabilities - 1)).sum(-1)
    assert (worse >= best * (1 - 1e-6)).all()
    assert abs(float(worse.sum() / best.sum()) - 1.06) < 0.01


def test_approximation_samples_its_probabilities() -> None:
    group = torch.tensor([0.5, -2.0, 1.0, 0.1], dtype=torch.float64)
    count = 200_000
    generator = torch.Generator().manual_seed(3)
    u, v = torch.rand(2, count, generator=generator, dtype=torch.float64)
    kept, values = sample_pairs(group.expand(count, 4), u, v)
    p = approximate_inclusion_probabilities(group)
    # Eight comparisons at 4.5 standard errors: false alarm 5e-5.
    assert ((kept.double().mean(0) - p).abs() <= 4.5 * (p * (1 - p) / count).sqrt()).all()
    deviation = group.abs() * (1 / p - 1).sqrt()
    assert ((values.mean(0) - group).abs() <= 4.5 * deviation / count**0.5).all()


# The estimator, statistically, on the path that a training step takes.


def check_statistics(device: torch.device, impl: str, dtype: torch.dtype, seed: int) -> None:
    """20 000 draws of 64 groups; 256 means at 4.5 standard errors: a false alarm in 0.2 % of correct programs."""
    draws, channels = 20_000, 64
    groups = torch.randn(4, channels, generator=torch.Generator().manual_seed(seed)).to(dtype)
    grad = groups.to(device).repeat(draws, 1)
    estimate = mvue24(grad, seed, 0, impl=impl).cpu().double().view(draws, 4, channels)
    exact = groups.double()
    p = inclusion_probabilities(exact.t()).t()
    deviation = exact.abs() * (1 / p - 1).sqrt()
    rounding = 2**-9 if dtype is torch.bfloat16 else 2**-21
    bound = 4.5 * deviation / draws**0.5 + rounding * exact.abs()
    assert ((estimate.mean(0) - exact).abs() <= bound).all()
    variance = (estimate - exact).square().mean(0).sum()
    assert abs(float(variance / deviation.square().sum()) - 1) < 0.03


@pytest.mark.parametrize(("impl", "seed"), [("reference", 1), ("cpu", 2)])
def test_statistics(impl: str, seed: int) -> None:
    check_statistics(torch.device("cpu"), impl, torch.float32, seed)


@pytest.mark.gpu
@pytest.mark.parametrize("seed", [1, 2])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_statistics_on_gpu(seed: int, dtype: torch.dtype, gpu: torch.device) -> None:
    check_statistics(gpu, "triton", dtype, seed)


# Backends.


def awkward(shape: tuple[int, int], dtype: torch.dtype) -> Tensor:
    grad = torch.randn(shape, generator=torch.Generator().manual_seed(shape[0])).to(dtype)
    if shape[0] > 8 and shape[1] > 6:
        columns = [(1, 1, 1e-30, 0), (0, 0, 3, 0), (100, 1e-4, 1e-4, 1e-4), (0, 0, 0, 0), (-2, 0, 0, 5), (0, 3, 3, 0)]
        grad[0:4, :6] = torch.tensor(columns).t().to(dtype)
        grad[4:8, 3] = torch.tensor((6e-8, -6e-8, 1.2e-7, 6e-8)).to(dtype)
    return grad


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_triton_equals_reference(shape: tuple[int, int], dtype: torch.dtype, kernel_device: torch.device) -> None:
    grad = awkward(shape, dtype)
    # The interpreter truncates to bfloat16 where the GPU (and torch) round: one unit in the last place there.
    slack = 2**-7 if dtype is torch.bfloat16 and kernel_device.type == "cpu" else 0.0
    there = grad.to(kernel_device)
    for dim in (0, 1):
        expected = mvue24(grad, -5, 2**40 + 3, dim=dim, impl="reference")
        got = mvue24(there, -5, 2**40 + 3, dim=dim, impl="triton").cpu()
        torch.testing.assert_close(got, expected, rtol=slack, atol=0)
    values, bits = mvue24_pack(grad, 11, 3, impl="reference")
    got_values, got_bits = mvue24_pack(there, 11, 3, impl="triton")
    assert torch.equal(got_bits.cpu(), bits)
    torch.testing.assert_close(got_values.cpu(), values, rtol=slack, atol=0)


@pytest.mark.parametrize("shape", [*SHAPES, (5, 0)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_cpu_equals_reference_bit_for_bit(
    shape: tuple[int, int], dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(planes, "_GROUPS_AT_ONCE", 512)  # several blocks, the last one shorter

    def same(got: Tensor, expected: Tensor) -> bool:
        return got.is_contiguous() and torch.equal(*(t.reshape(-1).view(torch.uint8) for t in (got, expected)))

    grad = awkward(shape, dtype)
    for scale in (1.0, 0.0, -1e-38, 3e4):
        scaled = (grad.double() * scale).to(dtype)
        got, expected = (mvue24(scaled, -5, 2**40 + 3, impl=impl) for impl in ("cpu", "reference"))
        finite = expected.isfinite()
        assert same(torch.where(finite, got, 0), torch.where(finite, expected, 0))
        assert torch.equal(got.isnan(), expected.isnan())
        (values, bits), (expected_values, expected_bits) = (
            mvue24_pack(scaled, 11, 3, impl=impl) for impl in ("cpu", "reference")
        )
        torch.testing.assert_close(values, expected_values, rtol=0, atol=0, equal_nan=True)
        assert same(bits, expected_bits)
    # An infinity in one block changes the arithmetic of that block, not what it draws elsewhere.
    if grad.numel():
        grad[0, 0] = torch.inf
        got, expected = (mvue24(grad, 1, 2, impl=impl) for impl in ("cpu", "reference"))
        torch.testing.assert_close(got, expected, rtol=0, atol=0, equal_nan=True)


def test_what_the_cpu_backend_refuses() -> None:
    with pytest.raises(KernelUnavailable, match="float64"):
        mvue24(torch.zeros(8, 4).double(), 0, 0, impl="cpu")
    with pytest.raises(KernelUnavailable, match="approx"):
        mvue24(torch.zeros(8, 4), 0, 0, method="approx", impl="cpu")
    with pytest.raises(KernelUnavailable, match="meta"):
        mvue24_op.dispatch("cpu", *(torch.zeros(8, 4, device="meta"),) * 3, "exact")


@pytest.mark.parametrize("shape", SHAPES)
def test_packed_is_the_dense_estimate(shape: tuple[int, int]) -> None:
    grad = awkward(shape, torch.float32)
    values, bits = mvue24_pack(grad, 7, 8)
    groups = (shape[0] + 3) // 4
    assert values.shape == (shape[1], 2 * groups)
    mask = unpack_mask(bits, 4 * groups)
    assert (mask.view(shape[1], groups, 4).sum(-1) == 2).all()
    assert torch.equal(decode(values, bits, shape[0]), mvue24(grad, 7, 8))
    if groups % 2:
        assert (bits[:, -1] < 16).all()


@pytest.mark.parametrize("impl", ["reference", "cpu", "triton"])
def test_structure(impl: str, kernel_device: torch.device) -> None:
    device = kernel_device if impl == "triton" else torch.device("cpu")
    grad = awkward((64, 64), torch.float32)
    estimate = mvue24(grad.to(device), 1, 2, impl=impl).cpu()
    nonzero = (estimate != 0).view(16, 4, 64)
    assert (nonzero.sum(1) <= 2).all()
    assert (estimate * grad >= 0).all()
    few = (grad != 0).view(16, 4, 64).sum(1, keepdim=True) <= 2
    few = few.expand(16, 4, 64).reshape(64, 64)
    assert torch.equal(estimate[few], grad[few])
    big = estimate[0:4, 2]
    assert big[0] == 100
    torch.testing.assert_close(big[1:].sum(), torch.tensor(3e-4))


def test_strides(kernel_device: torch.device) -> None:
    base = torch.randn(40, 72, generator=torch.Generator().manual_seed(1))
    there = base.to(kernel_device)
    for view in (lambda t: t.t(), lambda t: t[3:30, 5:44], lambda t: t[::2, ::3], lambda t: t[:1].expand(13, 72)):
        expected = mvue24(view(base).contiguous(), 3, 4, impl="reference")
        assert torch.equal(mvue24(view(there), 3, 4, impl="triton").cpu(), expected)
        assert torch.equal(mvue24(view(base), 3, 4, impl="reference"), expected)
        assert torch.equal(mvue24(view(base), 3, 4, impl="cpu"), expected)
        values, bits = mvue24_pack(view(there), 3, 4, impl="triton")
        assert torch.equal(decode(values.cpu(), bits.cpu(), expected.shape[0]), expected)


@pytest.mark.parametrize("impl", ["reference", "cpu", "triton"])
@pytest.mark.parametrize("bad", [float("inf"), -float("inf"), float("nan")])
def test_not_finite_values_spread_over_their_group(impl: str, bad: float, kernel_device: torch.device) -> None:
    device = kernel_device if impl == "triton" else torch.device("cpu")
    for place in range(4):
        grad = torch.randn(16, 3, generator=torch.Generator().manual_seed(place))
        grad[4 + place, 1] = bad
        grad[8:12, 2] = 3e38  # finite, but not their sum
        for seed in range(3):
            estimate = mvue24(grad.to(device), seed, 0, impl=impl).cpu()
            assert estimate[4:8, 1].isnan().all()
            assert estimate[8:12, 2].isnan().all()
            assert estimate.isnan().sum() == 8
            values, bits = mvue24_pack(grad.to(device), seed, 0, impl=impl)
            assert values.cpu().isnan().sum() == 4
            assert values.cpu()[1, 2:4].isnan().all()
            assert (unpack_mask(bits.cpu(), 16).view(3, 4, 4).sum(-1) == 2).all()


def test_draws_depend_on_seed_and_offset_alone() -> None:
    grad = torch.randn(64, 32, generator=torch.Generator().manual_seed(0))
    first = mvue24(grad, 1, 2)
    assert torch.equal(first, mvue24(grad, torch.tensor(1), torch.tensor(2)))
    for seed, offset in ((2, 2), (1, 3), (1, 2 + 2**32), (1 + 2**32, 2), (-1, 2)):
        assert not torch.equal(first, mvue24(grad, seed, offset))
    # The draw of a group does not depend on how many tokens follow.
    assert torch.equal(first[:20], mvue24(grad[:20], 1, 2))


def test_float64_is_computed_in_float64() -> None:
    grad = torch.tensor([[1.0], [1.0 + 1e-12], [1.0], [0.5]], dtype=torch.float64)
    estimate = mvue24(grad, 0, 0)
    height = grad.sum() / 2
    assert torch.equal(estimate[estimate != 0], height.expand(2))


def test_bad_input() -> None:
    grad = torch.zeros(8, 4)
    with pytest.raises(ValueError, match="two dimensions"):
        mvue24(torch.zeros(2, 4, 4), 0, 0)
    with pytest.raises(TypeError, match="floating"):
        mvue24_pack(torch.zeros(8, 4, dtype=torch.int64), 0, 0)
    with pytest.raises(ValueError, match="dim=2"):
        mvue24(grad, 0, 0, dim=2)
    with pytest.raises(ValueError, match="'best'"):
        mvue24(grad, 0, 0, method="best")
    with pytest.raises(ValueError, match="64 bits"):
        mvue24(grad, 2**63, 0)
    with pytest.raises(ValueError, match="offset has"):
        mvue24(grad, 0, torch.zeros(1, dtype=torch.int64))
    with pytest.raises(KernelUnavailable, match="float64"):
        mvue24(grad.double(), 0, 0, impl="triton")
    with pytest.raises(KernelUnavailable, match="approx"):
        mvue24(grad, 0, 0, method="approx", impl="triton")


def test_empty() -> None:
    assert mvue24(torch.zeros(0, 4), 0, 0).shape == (0, 4)
    values, bits = mvue24_pack(torch.zeros(0, 4), 0, 0)
    assert values.shape == (4, 0)
    assert bits.shape == (4, 0)


def test_opcheck() -> None:
    grad, seed, offset = torch.randn(10, 3), torch.tensor(1), torch.tensor(2)
    torch.library.opcheck(torch.ops.planish.mvue24, (grad, seed, offset, "exact", "auto"))
    torch.library.opcheck(torch.ops.planish.mvue24, (grad, seed, offset, "approx", "auto"))
    torch.library.opcheck(torch.ops.planish.mvue24_pack, (grad, seed, offset, "auto"))


def test_compiles_without_graph_breaks() -> None:
    def estimate(grad: Tensor, offset: Tensor) -> Tensor:
        values, _ = mvue24_pack(grad, 3, offset)
        return mvue24(grad, 3, offset).sum(0) + values.sum(1)

    compiled = torch.compile(estimate, fullgraph=True, backend="aot_eager")
    grad, offset = torch.randn(12, 5), torch.tensor(4)
    torch.testing.assert_close(compiled(grad, offset), estimate(grad, offset))
    torch.testing.assert_close(compiled(grad, offset + 1), estimate(grad, offset + 1))


@pytest.mark.gpu
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_large_on_gpu(dtype: torch.dtype, gpu: torch.device) -> None:
    grad = torch.randn(4098, 4091, device=gpu).to(dtype)
    assert torch.equal(mvue24(grad, 1, 2), mvue24(grad, 1, 2, impl="reference"))
    for got, expected in zip(mvue24_pack(grad, 1, 2), mvue24_pack(grad, 1, 2, impl="reference"), strict=True):
        assert torch.equal(got, expected)


@pytest.mark.gpu
def test_a_graph_draws_anew_at_each_replay(gpu: torch.device) -> None:
    grad = torch.randn(256, 128, device=gpu)
    seed, offset = torch.tensor(1, device=gpu), torch.tensor(0, device=gpu)
    mvue24(grad, seed, offset)
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        out = mvue24(grad, seed, offset)
        offset += 1
    for step in range(3):
        graph.replay()
        assert torch.equal(out, mvue24(grad, 1, step))
