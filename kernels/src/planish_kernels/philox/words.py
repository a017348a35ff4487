"""Philox4x32 in torch's int64 arithmetic: the same random words as Triton's ``tl.philox``, on any device.

Source: Salmon, Moraes, Dror, Shaw, "Parallel random numbers: as easy as 1, 2, 3", SC 2011.
"""

from __future__ import annotations

import torch
from torch import Tensor

_WORD = 0xFFFFFFFF
_MULTIPLIERS = (0xD2511F53, 0xCD9E8D57)
_KEY_STEPS = (0x9E3779B9, 0xBB67AE85)
ROUNDS = 10
NOISE_ROUNDS = 7
"""The least that pass the tests of the source (table 2); what rounds codes draws by the element, and pays for each."""


def _multiply(multiplier: int, word: Tensor) -> tuple[Tensor, Tensor]:
    """High and low 32 bits of the 64-bit product. It may wrap past 2^63; its bits are right all the same."""
    product = word * multiplier
    return (product >> 32) & _WORD, product & _WORD


def philox(
    counter: tuple[Tensor, Tensor, Tensor, Tensor], key: tuple[Tensor, Tensor], rounds: int = ROUNDS
) -> tuple[Tensor, ...]:
    """Four random 32-bit words for each counter.

    Args:
        counter: four int64 tensors that broadcast, each holding a 32-bit word in ``[0, 2^32)``.
        key: two int64 tensors that broadcast with them, likewise.
        rounds: of mixing.

    Returns:
        Four int64 tensors of 32-bit words.
    """
    c0, c1, c2, c3 = counter
    k0, k1 = key
    for _ in range(rounds):
        high0, low0 = _multiply(_MULTIPLIERS[0], c0)
        high1, low1 = _multiply(_MULTIPLIERS[1], c2)
        c0, c1, c2, c3 = high1 ^ c1 ^ k0, low1, high0 ^ c3 ^ k1, low0
        k0, k1 = (k0 + _KEY_STEPS[0]) & _WORD, (k1 + _KEY_STEPS[1]) & _WORD
    return c0, c1, c2, c3


def _uniform(words: Tensor) -> Tensor:
    return (words >> 9).to(torch.float32) * 2.0**-23


def group_uniforms(
    seed: Tensor, offset: Tensor, groups: int, channels: int, *, stream: int = 0, first_group: int = 0
) -> Tensor:
    """One uniform for each group of four tokens of each channel, as the kernels draw them.

    Four groups that follow each other in a channel share one Philox call: group ``g`` of channel ``c`` takes word
    ``g % 4`` of the counter ``(g // 4) * channels + c`` (64 bits), with ``offset`` (64 bits) as the upper half of the
    counter and ``seed`` as the key. The draws depend on nothing else: not on the layout, nor on the launch grid.

    Args:
        seed, offset: 0-d int64 tensors.
        groups, channels: how many groups of tokens, and how many channels.
        stream: an independent set of draws for estimators that need more than one uniform; the kernels use 0.
        first_group: the number of the first group, a multiple of four.

    Returns:
        float32 ``[groups, channels]`` in ``[0, 1)``, multiples of 2^-23 (so that ``1 + u`` is exact in float32).
    """
    device = seed.device
    first_call = first_group // 4
    calls = torch.arange(first_call, first_call + (groups + 3) // 4, dtype=torch.int64, device=device).unsqueeze(1)
    counter = calls * channels + torch.arange(channels, dtype=torch.int64, device=device)
    key = (seed & _WORD, ((seed >> 32) & _WORD) ^ stream)
    words = philox((counter & _WORD, (counter >> 32) & _WORD, offset & _WORD, (offset >> 32) & _WORD), key)
    return _uniform(torch.stack(words, dim=1).flatten(0, 1)[:groups])


def element_uniforms(seed: Tensor, offset: Tensor, rows: int, cols: int) -> Tensor:
    """One uniform for each element of a matrix, as kernels that drop elements draw them.

    Four columns that follow each other share one Philox call: element ``(r, c)`` takes word ``c % 4`` of the counter
    ``(c // 4) * rows + r``. Nothing else decides: not the strides, nor the tile in which a kernel meets the element.

    Args:
        seed, offset: 0-d int64 tensors.
        rows, cols: the shape.

    Returns:
        float32 ``[rows, cols]`` in ``[0, 1)``, multiples of 2^-23.
    """
    # group_uniforms(seed, offset, cols, rows).t(), laid out by rows.
    calls = torch.arange((cols + 3) // 4, dtype=torch.int64, device=seed.device)
    counter = calls * rows + torch.arange(rows, dtype=torch.int64, device=seed.device).unsqueeze(1)
    key = (seed & _WORD, (seed >> 32) & _WORD)
    words = philox((counter & _WORD, (counter >> 32) & _WORD, offset & _WORD, (offset >> 32) & _WORD), key)
    return _uniform(torch.stack(words, dim=-1).flatten(1)[:, :cols])


def rounding_noise(seed: Tensor, offset: Tensor, rows: int, cols: int) -> Tensor:
    """What stochastic rounding adds to each element of a matrix before it takes the nearest integer.

    Eight columns that follow each other share one Philox call of seven rounds: element ``(r, c)`` takes half
    ``c % 2`` (the low one first) of word ``c % 8 // 2`` of the counter ``(c // 8) * rows + r``. Nothing else decides:
    not the strides, nor the tile in which a kernel meets the element.

    Sixteen bits suffice: the chance of rounding up is right to 2^-16, and as odd multiples of 2^-16 the noises lie
    evenly about zero and never make a tie of an integer, which so stays what it is.

    Args:
        seed, offset: 0-d int64 tensors.
        rows, cols: the shape.

    Returns:
        float32 ``[rows, cols]`` in ``(-1/2, 1/2)``, odd multiples of 2^-16.
    """
    calls = torch.arange((cols + 7) // 8, dtype=torch.int64, device=seed.device)
    counter = calls * rows + torch.arange(rows, dtype=torch.int64, device=seed.device).unsqueeze(1)
    key = (seed & _WORD, (seed >> 32) & _WORD)
    position = (counter & _WORD, (counter >> 32) & _WORD, offset & _WORD, (offset >> 32) & _WORD)
    words = torch.stack(philox(position, key, NOISE_ROUNDS), dim=-1)
    halves = torch.stack((words & 0xFFFF, words >> 16), dim=-1).flatten(1)[:, :cols]
    return ((halves | 1) - 32768).to(torch.float32) * 2.0**-16
