"""Correlation lookups against tents over the whole level in float64, and against torch's sampler."""

import pytest
import torch
from planish_kernels.correlation_lookup import correlation_lookup
from planish_kernels.runtime.op import KernelUnavailable

TOLERANCE = 4 * 2.0**-24
"""Weights are rounded twice, and four products are added up: in units of the largest correlation."""


def pyramid_of(pairs: int, height: int, width: int, levels: int, device: torch.device) -> list[torch.Tensor]:
    """Random levels, each half the size of the one before."""
    drawn = torch.Generator().manual_seed(pairs)
    sizes = [(max(height >> level, 1), max(width >> level, 1)) for level in range(levels)]
    return [torch.randn(pairs * height * width, 1, *size, generator=drawn).to(device) for size in sizes]


def positions_of(pairs: int, height: int, width: int, device: torch.device) -> torch.Tensor:
    """Positions within and around a frame, some of them whole, some on its edges."""
    drawn = torch.Generator().manual_seed(width)
    coords = torch.rand(pairs, 2, height, width, generator=drawn) * 2 * max(height, width) - max(height, width) / 2
    coords[:, :, 0] = coords[:, :, 0].round()
    coords[:, :, 1, 0], coords[:, 0, 1, 1], coords[:, 1, 1, 1] = -1e-8, width - 1.0, height - 1.0
    return coords.to(device)


def tents(pyramid: list[torch.Tensor], radius: int, coords: torch.Tensor) -> torch.Tensor:
    """Each value of a level times a tent around each place of the window, in float64; nothing is gathered."""
    pairs, _, height, width = coords.shape
    steps = torch.arange(-radius, radius + 1, device=coords.device).double()
    found = []
    for level, volume in enumerate(pyramid):
        x, y = (
            coords[:, axis].reshape(-1, 1, 1).double() / 2**level
            + steps[:, None]
            - torch.arange(volume.shape[3 - axis], device=coords.device)
            for axis in (0, 1)
        )
        tent_x, tent_y = ((1 - by.abs()).clamp(min=0) for by in (x, y))
        windows = torch.einsum("nax,nyx,nby->nab", tent_x, volume[:, 0].double(), tent_y)
        found.append(windows.reshape(pairs, height, width, -1))
    return torch.cat(found, -1).permute(0, 3, 1, 2)


@pytest.mark.parametrize("impl", ["reference", "triton"])
@pytest.mark.parametrize(
    ("pairs", "height", "width", "levels", "radius"),
    [(2, 6, 9, 3, 4), (1, 5, 3, 2, 1), (3, 4, 4, 1, 0), (1, 4, 7, 4, 3)],
)
def test_windows_are_tents_over_the_level(
    kernel_device: torch.device, impl: str, pairs: int, height: int, width: int, levels: int, radius: int
) -> None:
    pyramid = pyramid_of(pairs, height, width, levels, kernel_device)
    coords = positions_of(pairs, height, width, kernel_device)
    expected = tents(pyramid, radius, coords)
    found = correlation_lookup(pyramid, radius, coords, torch.float32, impl=impl)
    assert found.is_contiguous(memory_format=torch.channels_last)
    largest = max(volume.abs().max().item() for volume in pyramid)
    assert (found.double() - expected).abs().max() <= TOLERANCE * largest
    short = correlation_lookup(pyramid, radius, coords, torch.bfloat16, impl=impl)
    # The interpreter cuts off where a GPU rounds to nearest.
    cut_off = 2.0**-7 if impl == "triton" and kernel_device.type == "cpu" else 0.0
    torch.testing.assert_close(short, found.to(torch.bfloat16), rtol=cut_off, atol=0)


def test_windows_are_those_of_a_sampler(kernel_device: torch.device) -> None:
    pyramid, coords = pyramid_of(2, 8, 12, 2, kernel_device), positions_of(2, 8, 12, kernel_device)
    steps = torch.arange(-2, 3.0, device=kernel_device)
    window = torch.stack(torch.meshgrid(steps, steps, indexing="ij"), -1)
    expected = []
    for level, volume in enumerate(pyramid):
        places = coords.permute(0, 2, 3, 1).reshape(-1, 1, 1, 2).double() / 2**level + window.double()
        last = torch.tensor([volume.shape[3] - 1, volume.shape[2] - 1], device=kernel_device)
        sampled = torch.nn.functional.grid_sample(volume.double(), 2 * places / last - 1, align_corners=True)
        expected.append(sampled.reshape(2, 8, 12, -1))
    found = correlation_lookup(pyramid, 2, coords, torch.float32, impl="triton")
    torch.testing.assert_close(found.double(), torch.cat(expected, -1).permute(0, 3, 1, 2), atol=3e-6, rtol=0)


@pytest.mark.parametrize("impl", ["reference", "triton"])
def test_far_and_broken_positions_give_zeros(kernel_device: torch.device, impl: str) -> None:
    inf, nan = float("inf"), float("nan")
    far = [inf, -inf, nan, 1e30, -1e30, 2.0**31, -(2.0**31), 2.0**63, 7.0, -3.5]
    coords = torch.full((1, 2, 2 * len(far), 1), 1.5, device=kernel_device)
    for row, value in enumerate(far):
        # Each beside a position that alone would be within.
        coords[0, 0, row] = coords[0, 1, len(far) + row] = value
    level = torch.full((2 * len(far), 1, 5, 5), nan, device=kernel_device)
    for dtype in (torch.float32, torch.bfloat16):
        found = correlation_lookup([level], 2, coords, dtype, impl=impl)
        assert torch.equal(found, torch.zeros_like(found)), "not even a NaN of the level is read"


@pytest.mark.parametrize("impl", ["reference", "triton"])
def test_no_pairs_give_nothing(kernel_device: torch.device, impl: str) -> None:
    level = torch.empty(0, 1, 4, 4, device=kernel_device)
    found = correlation_lookup([level], 1, torch.empty(0, 2, 4, 4, device=kernel_device), torch.float32, impl=impl)
    assert found.shape == (0, 9, 4, 4)


def test_strides_do_not_matter(kernel_device: torch.device) -> None:
    pyramid, coords = pyramid_of(1, 4, 6, 2, kernel_device), positions_of(1, 4, 6, kernel_device)
    expected = correlation_lookup(pyramid, 1, coords, torch.float32, impl="triton")
    turned = [volume.transpose(2, 3).contiguous().transpose(2, 3) for volume in pyramid]
    last = coords.contiguous(memory_format=torch.channels_last)
    for impl in ("reference", "triton"):
        torch.testing.assert_close(correlation_lookup(turned, 1, last, torch.float32, impl=impl), expected)


def test_what_does_not_fit_is_said() -> None:
    level, coords = torch.ones(12, 1, 3, 4), torch.ones(1, 2, 3, 4)
    for levels, radius, at, words in (
        ([level], 1, torch.ones(1, 3, 3, 4), "coords has shape"),
        ([], 1, coords, "0 levels"),
        ([level], -1, coords, "radius -1"),
        ([level, level[:6]], 1, coords, r"level 1 .*expected \[12, 1, rows, columns\]"),
        ([torch.ones(12, 1, 0, 4)], 1, coords, "level 0"),
        ([level, level.to("meta")], 1, coords, "level 1 is on meta and coords on cpu"),
    ):
        with pytest.raises(ValueError, match=words):
            correlation_lookup(levels, radius, at, torch.float32)
    with pytest.raises(TypeError, match=r"level 0 has dtype torch\.float64"):
        correlation_lookup([level.double()], 1, coords, torch.float32)
    with pytest.raises(TypeError, match=r"coords has dtype torch\.bfloat16"):
        correlation_lookup([level], 1, coords.bfloat16(), torch.float32)
    with pytest.raises(TypeError, match=r"out_dtype=torch\.float16"):
        correlation_lookup([level], 1, coords, torch.float16)
    with pytest.raises(KernelUnavailable):
        correlation_lookup([level], 1, coords, torch.float32, impl="cuda")


def test_the_operator_can_be_traced() -> None:
    pyramid, coords = pyramid_of(2, 4, 5, 2, torch.device("cpu")), positions_of(2, 4, 5, torch.device("cpu"))
    for dtype in (torch.float32, torch.bfloat16):
        torch.library.opcheck(torch.ops.planish.correlation_lookup, (pyramid, 1, coords, dtype, "auto"))


@pytest.mark.gpu
def test_places_beyond_32_bits_on_a_gpu(gpu: torch.device) -> None:
    pytest.importorskip("triton", reason="triton is not installed")
    pairs, height, width = 34, 68, 120  # 2.26e9 correlations, 9 GB
    if torch.cuda.mem_get_info(gpu)[0] < 14 * 2**30:
        pytest.skip("needs 14 GiB of free GPU memory")
    drawn = torch.Generator(gpu).manual_seed(0)
    level = torch.randn(pairs * height * width, 1, height, width, device=gpu, generator=drawn)
    assert level.numel() > 2**31
    coords = torch.rand(pairs, 2, height, width, device=gpu, generator=drawn) * 140 - 10
    coords[-1, 0, 0, :3] = torch.tensor([float("nan"), float("inf"), 1e30], device=gpu)
    found = correlation_lookup([level], 4, coords, torch.float32, impl="triton")
    assert not found[-1, :, 0, :3].any()
    for pair in (0, pairs - 2):
        part = level[pair * height * width : (pair + 1) * height * width]
        expected = correlation_lookup([part], 4, coords[pair : pair + 1], torch.float32, impl="reference")
        torch.testing.assert_close(found[pair : pair + 1], expected, atol=1e-5, rtol=0)
