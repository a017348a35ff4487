"""Unbiased 2:4 estimators of a tensor, in plain torch: the minimum-variance one, and the common approximation.

Of each group of four values at most two are kept, and each kept value is divided by the probability of keeping it, so
that the expectation is the group itself (Chmiel et al., "Minimum variance unbiased N:M sparsity for the neural
gradients", ICLR 2023). The variance ``sum a_i^2 (1/p_i - 1)`` under ``sum p_i = 2, p_i <= 1`` is least for
``p_i = min(1, c * a_i)``, with a = |x|. Any joint distribution with these marginals attains it; systematic sampling
needs one uniform a group.

With these probabilities the kept values are simple. Where one magnitude outweighs the three others together it is kept
as it is, and one of the others comes along as the sum R of the three; else each kept value is half the sum of the
group. No division takes place, and every kept value of a group has the same magnitude up to that one exception.
"""

from __future__ import annotations

import torch
from torch import Tensor

from planish_kernels.philox import group_uniforms

_APPROXIMATE_FLOOR = 1.19e-7


def _dominant(a: Tensor) -> Tensor:
    """Bool ``[..., 4]``: the magnitude that exceeds the three others together, if there is one.

    A rounded sum is never less than a term of it, hence no group has two.
    """
    a0, a1, a2, a3 = a.unbind(-1)
    low, high = a0 + a1, a2 + a3
    return torch.stack((a0 > a1 + high, a1 > a0 + high, a2 > a3 + low, a3 > a2 + low), dim=-1)


def _spread_non_finite(a: Tensor, kept: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
    """NaN in every place of a group whose magnitudes do not sum to a finite number, with the first two places kept."""
    finite = torch.isfinite((a[..., 0] + a[..., 1]) + (a[..., 2] + a[..., 3])).unsqueeze(-1)
    front = torch.arange(4, device=a.device) < 2
    return torch.where(finite, kept, front), torch.where(finite, values, torch.nan)


def inclusion_probabilities(groups: Tensor) -> Tensor:
    """The minimum-variance probability of keeping each value: ``min(1, c * |x|)`` with at most two kept on average.

    Args:
        groups: float ``[..., 4]``, finite.

    Returns:
        Probabilities of the same shape and dtype. They sum to ``min(2, number of nonzeros)``; zeros have 0.
    """
    a = groups.abs()
    dominant = _dominant(a)
    rest = torch.where(dominant, 0, a)
    total = rest.sum(-1, keepdim=True)
    share = torch.where(dominant.any(-1, keepdim=True), total, total / 2)
    kept = torch.where(total > 0, rest / torch.where(share > 0, share, 1), 0)
    return torch.where(dominant, (a > 0).to(a.dtype), kept)


def sample_systematic(groups: Tensor, uniforms: Tensor) -> tuple[Tensor, Tensor]:
    """Draw the minimum-variance estimate of each group with one uniform.

    Intervals are laid end to end on a line of length 2h: for each value its magnitude, or the sum of the three others
    where that is less. Hence no interval is longer than h, and the points ``u*h`` and ``u*h + h`` lie in two different
    ones; their values are kept. A value that outweighs the others has an interval of length h, which always holds one
    of the points, and it keeps its magnitude; every other kept value gets the magnitude h. (Ends of intervals are
    rounded: at worst one draw in 2^22 in float32 falls on the wrong side of one, less than the rounding of h matters.)

    Args:
        groups: float ``[..., 4]``.
        uniforms: ``[...]`` in ``[0, 1)``.

    Returns:
        ``(kept, values)``: bool and float ``[..., 4]``. ``kept`` marks exactly two places of each group; ``values`` is
        zero elsewhere (and also at a place that is marked only to make two). A group with a value that is not finite,
        or whose magnitudes sum to infinity, is all NaN, with any two places marked.
    """
    a = groups.abs()
    a0, a1, a2, a3 = a.unbind(-1)
    limits = torch.finfo(a.dtype)
    # The smallest float keeps the interval of a value that is alone in its group from vanishing.
    smallest = limits.smallest_normal * limits.eps
    low, high = (a0 + a1) + smallest, (a2 + a3) + smallest
    first = torch.fmin(a0, a1 + high)
    second = first + torch.fmin(a1, a0 + high)
    third = second + torch.fmin(a2, a3 + low)
    total = third + torch.fmin(a3, a2 + low)
    height = total * 0.5
    ahead = 1.0 + uniforms.to(a.dtype)
    near = (ahead - 1.0) * height
    # The largest number under the total: a point must lie inside the line, however it is rounded.
    far = torch.fmin(ahead * height, total * (1 - limits.eps / 2))

    near0, near1 = near < first, near < second
    far1, far2 = (far < second) & near0, (far < third) & near1
    kept = torch.stack((near0, far1 | (near1 & ~near0), ~near1 | (far2 & ~far1), ~far1 & ~far2), dim=-1)
    values = torch.copysign(torch.maximum(a, height.unsqueeze(-1)), groups)
    values = torch.where(kept, values, 0)
    return kept, torch.where(torch.isfinite(low + high).unsqueeze(-1), values, torch.nan)


def approximate_inclusion_probabilities(groups: Tensor) -> Tensor:
    """Probabilities of ``sample_pairs``: ``p_i = t_i + a_i * sum_{j != i} t_j / (S - a_j)``, with ``t = a / S``.

    Args:
        groups: float ``[..., 4]``, finite. A floor of 1.19e-7 is added to every magnitude, as the authors of the
            estimator do; hence every place has a positive probability.
    """
    a = groups.abs() + _APPROXIMATE_FLOOR
    total = a.sum(-1, keepdim=True)
    share = a / total
    odds = share / (total - a)
    return share + a * (odds.sum(-1, keepdim=True) - odds)


def sample_pairs(groups: Tensor, uniforms: Tensor, more_uniforms: Tensor) -> tuple[Tensor, Tensor]:
    """The approximate estimator: draw two places one after the other, without replacement, each in proportion to |x|.

    Unbiased like ``sample_systematic``; its variance is a few per cent higher (6 % for normal values), and it takes
    two uniforms a group. It is kept for comparison. Arguments and results are those of ``sample_systematic``.
    """
    a = groups.abs() + _APPROXIMATE_FLOOR

    def draw(weights: Tensor, point: Tensor) -> Tensor:
        ends = weights.cumsum(-1)
        index = (ends <= (point.to(a.dtype) * ends[..., 3]).unsqueeze(-1)).sum(-1, keepdim=True).clamp(max=3)
        return torch.zeros_like(weights, dtype=torch.bool).scatter(-1, index, True)

    kept = draw(a, uniforms)
    kept = kept | draw(torch.where(kept, 0, a), more_uniforms)
    values = torch.where(kept, groups / approximate_inclusion_probabilities(groups), 0)
    missing = 2 - kept.sum(-1, keepdim=True)
    kept = kept | (~kept & ((~kept).cumsum(-1) <= missing))
    return _spread_non_finite(a, kept, values)


def _sample(grad: Tensor, seed: Tensor, offset: Tensor, method: str) -> tuple[Tensor, Tensor]:
    """``(kept, values)`` of ``grad [tokens, channels]``, both ``[groups, channels, 4]``, in the dtype computed in."""
    tokens, channels = grad.shape
    groups = (tokens + 3) // 4
    compute = torch.float64 if grad.dtype is torch.float64 else torch.float32
    padded = torch.nn.functional.pad(grad.to(compute), (0, 0, 0, groups * 4 - tokens))
    quads = padded.view(groups, 4, channels).transpose(1, 2)
    uniforms = group_uniforms(seed, offset, groups, channels)
    if method == "approx":
        return sample_pairs(quads, uniforms, group_uniforms(seed, offset, groups, channels, stream=1))
    return sample_systematic(quads, uniforms)


def mvue24_reference(grad: Tensor, seed: Tensor, offset: Tensor, method: str) -> Tensor:
    """Dense estimate of ``grad [tokens, channels]``; see ``planish_kernels.mvue24.mvue24``."""
    _, values = _sample(grad, seed, offset, method)
    return values.transpose(1, 2).flatten(0, 1)[: grad.shape[0]].to(grad.dtype).contiguous()


def mvue24_pack_reference(grad: Tensor, seed: Tensor, offset: Tensor) -> tuple[Tensor, Tensor]:
    """Packed transpose of the estimate; see ``planish_kernels.mvue24.mvue24_pack``."""
    from planish_kernels.mask24.bits import pack_mask

    channels = grad.shape[1]
    kept, values = _sample(grad, seed, offset, "exact")
    kept, values = kept.transpose(0, 1), values.transpose(0, 1)
    pairs = values[kept].view(channels, kept.shape[1] * 2).to(grad.dtype)
    return pairs, pack_mask(kept.flatten(1))
