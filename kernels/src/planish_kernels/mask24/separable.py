"""The transposable mask search by parts: the optimum of the ninety patterns from 63 sums, in torch.

Scores of patterns share their parts. Let column c of a pattern have two ones in the upper two rows, one, or none (then
the lower rows have one less, one, one more). A column with two or none is decided by the sums of its upper and lower
halves; two columns with one each are decided, in each half of the block, by which of the two rows takes which column.
Hence with

* ``upper[c], lower[c]``: sums of the two rows of a half,
* ``cross(b, c) = max(w[r, b] + w[r+1, c], w[r, c] + w[r+1, b])`` for either half,
* ``trade(a, d) = max(upper[a] + lower[d], upper[d] + lower[a])``

the best pattern is the largest of eight candidates:

* six: ``trade(a, d)`` plus both crosses of the other two columns,
* all columns traded: the larger of ``trade(0, 1) + trade(2, 3)`` and ``trade(0, 2) + trade(1, 3)``, whose choices
  together cover all six ways to split four columns,
* all columns crossed: the same with ``cross``, for each half on its own.

Each part carries its ones as a 16-bit key, row 0 in the highest nibble and column 0 in its highest bit: of two patterns
the one that comes first in lexicographic order has the larger key, so ties are decided by keys. The Triton kernel adds
in the same order, in the same precision: the two agree bit for bit.
"""

from __future__ import annotations

import torch
from torch import Tensor

_BLOCKS_AT_ONCE = 1 << 16
#: Sums of eight magnitudes below this do not overflow float32.
_LARGEST_SUMMABLE = 2.0**120
FIRST_PATTERN_KEY = 0xCC33
_PAIRS = ((0, 1), (0, 2), (0, 3), (1, 2), (1, 3), (2, 3))


def one(row: int, column: int) -> int:
    """The key of a single one."""
    return 1 << (15 - 4 * row - column)


class _Finite:
    """Comparisons of finite scores in arithmetic that torch vectorises on CPUs (``where`` and ``==`` it does not)."""

    @staticmethod
    def maximum(score: Tensor, other: Tensor) -> Tensor:
        return torch.maximum(score, other)

    @staticmethod
    def behind(score: Tensor, best: Tensor) -> Tensor:
        """int32, all ones where ``score < best`` and zero where they are equal: the sign bit of the difference."""
        return (score - best).view(torch.int32) >> 31


class _AnyFloat:
    """The same for scores with infinities and NaN: a NaN is behind every number."""

    @staticmethod
    def maximum(score: Tensor, other: Tensor) -> Tensor:
        return torch.fmax(score, other)

    @staticmethod
    def behind(score: Tensor, best: Tensor) -> Tensor:
        return -(score != best).to(torch.int32)


Part = tuple[Tensor, Tensor]
Comparison = type[_Finite] | type[_AnyFloat]


def _larger(compare: Comparison, score: Tensor, key: int, other_score: Tensor, other_key: int) -> Part:
    """The larger score and its key; the first where they are equal."""
    best = compare.maximum(score, other_score)
    return best, (compare.behind(score, best) & (key ^ other_key)) ^ key


def _foremost(compare: Comparison, candidates: list[Part]) -> Part:
    """The largest score, and the largest key among those that have it (0 where every score is NaN)."""
    best = candidates[0][0]
    for score, _ in candidates[1:]:
        best = compare.maximum(best, score)
    foremost = torch.zeros_like(candidates[0][1])
    for score, key in candidates:
        foremost = torch.maximum(foremost, ~compare.behind(score, best) & key)
    return best, foremost


def _splits(compare: Comparison, parts: dict[tuple[int, int], Part]) -> Part:
    """The best of two couples of pairs that together make the four columns."""
    (s01, k01), (s23, k23), (s02, k02), (s13, k13) = (parts[pair] for pair in ((0, 1), (2, 3), (0, 2), (1, 3)))
    return _foremost(compare, [(s01 + s23, k01 | k23), (s02 + s13, k02 | k13)])


def best_keys(w: list[list[Tensor]], compare: Comparison) -> Tensor:
    """Keys (int32, as ``one`` makes them) of the best patterns; ``w[row][column]`` are magnitudes of one shape."""
    upper = [w[0][c] + w[1][c] for c in range(4)]
    lower = [w[2][c] + w[3][c] for c in range(4)]
    cross: list[dict[tuple[int, int], Part]] = [{}, {}]
    for half, r in ((0, 0), (1, 2)):
        for b, c in _PAIRS:
            straight, crossed = one(r, b) | one(r + 1, c), one(r, c) | one(r + 1, b)
            cross[half][b, c] = _larger(compare, w[r][b] + w[r + 1][c], straight, w[r][c] + w[r + 1][b], crossed)
    trade: dict[tuple[int, int], Part] = {}
    for a, d in _PAIRS:
        kept = one(0, a) | one(1, a) | one(2, d) | one(3, d)
        traded = one(0, d) | one(1, d) | one(2, a) | one(3, a)
        trade[a, d] = _larger(compare, upper[a] + lower[d], kept, upper[d] + lower[a], traded)

    top, top_key = _splits(compare, cross[0])
    bottom, bottom_key = _splits(compare, cross[1])
    candidates = [_splits(compare, trade), (top + bottom, top_key | bottom_key)]
    for a, d in _PAIRS:
        b, c = (column for column in range(4) if column not in (a, d))
        (t, t_key), (u, u_key), (v, v_key) = trade[a, d], cross[0][b, c], cross[1][b, c]
        candidates.append((t + (u + v), t_key | u_key | v_key))
    _, keys = _foremost(compare, candidates)
    if compare is _AnyFloat:
        # Every pattern has a NaN: the first pattern, so that the mask is 2:4 whatever the weight.
        keys = torch.where(keys == 0, FIRST_PATTERN_KEY, keys)
    return keys


def _planes(weight: Tensor) -> tuple[Tensor, Comparison]:
    """Magnitudes of a permuted view as contiguous float32, and how to compare their sums."""
    planes = torch.empty(weight.shape, dtype=torch.float32, device=weight.device).copy_(weight).abs_()
    # A NaN is not less than anything.
    return planes, _Finite if planes.max() < _LARGEST_SUMMABLE else _AnyFloat


def _pack_groups(groups: Tensor) -> Tensor:
    """uint8 ``[rows, ceil(quads / 2)]`` of the four mask bits in ``groups``, int32 ``[rows, quads]``."""
    even, odd = groups[:, 0::2], torch.nn.functional.pad(groups, (0, groups.shape[1] % 2))[:, 1::2]
    return (even | (odd << 4)).to(torch.uint8)


def rowwise_bits_separable(weight: Tensor) -> Tensor:
    """Packed mask of the two largest magnitudes of every four columns; arguments as below."""
    rows, cols = weight.shape
    quads = cols // 4
    bits = torch.zeros((rows, (cols + 7) // 8), dtype=torch.uint8, device=weight.device)
    if weight.numel() == 0:
        return bits
    step = max(1, _BLOCKS_AT_ONCE // quads)
    for start in range(0, rows, step):
        part = weight.detach()[start : start + step].reshape(-1, quads, 4).permute(2, 0, 1)
        planes, compare = _planes(part)
        if compare is _AnyFloat:
            planes = torch.where(planes.isnan(), -1.0, planes)  # NaN ranks below every number

        def behind(place: int, other: int, planes: Tensor = planes, compare: Comparison = compare) -> Tensor:
            """All ones where a place has less than a later one."""
            if compare is _Finite:
                return compare.behind(planes[place], planes[other])
            return -(planes[place] < planes[other]).to(torch.int32)

        b01, b02, b03, b12, b13, b23 = (behind(place, other) for place, other in _PAIRS)
        # Of three comparisons a kept place wins two. The sign bit of each sum says that it is dropped.
        dropped0 = (b01 + b02 + b03 + 1) >> 31
        dropped1 = (b12 + b13 - b01) >> 31
        dropped2 = (b23 - b02 - b12 - 1) >> 31
        dropped3 = (-b03 - b13 - b23 - 2) >> 31
        groups = (~dropped0 & 1) | (~dropped1 & 2) | (~dropped2 & 4) | (~dropped3 & 8)
        bits[start : start + step] = _pack_groups(groups)
    return bits


def transposable_bits_separable(weight: Tensor) -> Tensor:
    """Packed mask, uint8 ``[rows, ceil(cols / 8)]``, of ``weight [rows, cols]`` with a floating dtype up to float32."""
    rows, cols = weight.shape
    bands, quads = rows // 4, cols // 4
    bits = torch.zeros((rows, (cols + 7) // 8), dtype=torch.uint8, device=weight.device)
    if weight.numel() == 0:
        return bits
    step = max(1, _BLOCKS_AT_ONCE // quads)
    for start in range(0, bands, step):
        stop = min(start + step, bands)
        part = weight.detach()[4 * start : 4 * stop].reshape(stop - start, 4, quads, 4).permute(1, 3, 0, 2)
        planes, compare = _planes(part)
        keys = best_keys([list(planes[row].unbind(0)) for row in range(4)], compare)
        # Mirror the four bits of every nibble: the lowest column goes to the lowest bit.
        keys = ((keys & 0x5555) << 1) | ((keys >> 1) & 0x5555)
        keys = ((keys & 0x3333) << 2) | ((keys >> 2) & 0x3333)
        band = bits[4 * start : 4 * stop].view(stop - start, 4, -1)
        for row in range(4):
            band[:, row] = _pack_groups((keys >> (12 - 4 * row)) & 0xF)
    return bits
