"""Minimum-variance 2:4 estimate of a gradient along its tokens, dense or packed and transposed in one pass."""

# mypy: disable-error-code="no-untyped-def,no-untyped-call"

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from planish_kernels.mvue24.select24 import bits_of, select24, value_at
from planish_kernels.philox.triton import one_to_two, philox_words


@triton.jit
def _load_token(grad, token, channel, tokens, channels, stride_token, stride_channel):
    inside = (token < tokens) & (channel < channels)
    return tl.load(grad + token * stride_token + channel * stride_channel, mask=inside, other=0.0).to(tl.float32)


@triton.jit
def _dense_kernel(
    grad,
    out,
    seed,
    offset,
    tokens,
    channels,
    grad_stride_token,
    grad_stride_channel,
    out_stride_token,
    out_stride_channel,
    BLOCK_CALLS: tl.constexpr,
    BLOCK_CHANNELS: tl.constexpr,
):
    """A program covers ``16 * BLOCK_CALLS`` tokens (a Philox call serves four groups), ``BLOCK_CHANNELS`` channels."""
    call = tl.program_id(1).to(tl.int64) * BLOCK_CALLS + tl.arange(0, BLOCK_CALLS)[:, None]
    channel = tl.program_id(0).to(tl.int64) * BLOCK_CHANNELS + tl.arange(0, BLOCK_CHANNELS)[None, :]
    words = philox_words(tl.load(seed), tl.load(offset), call * channels + channel)
    for lane in tl.static_range(4):
        token = call * 16 + lane * 4
        x0 = _load_token(grad, token, channel, tokens, channels, grad_stride_token, grad_stride_channel)
        x1 = _load_token(grad, token + 1, channel, tokens, channels, grad_stride_token, grad_stride_channel)
        x2 = _load_token(grad, token + 2, channel, tokens, channels, grad_stride_token, grad_stride_channel)
        x3 = _load_token(grad, token + 3, channel, tokens, channels, grad_stride_token, grad_stride_channel)
        left, right, code = select24(x0, x1, x2, x3, one_to_two(words[lane]))
        for place in tl.static_range(4):
            y = value_at(place, left, right, code)
            here = token + place
            inside = (channel < channels) & (here < tokens)
            pointer = out + here * out_stride_token + channel * out_stride_channel
            tl.store(pointer, y.to(out.dtype.element_ty), mask=inside)


@triton.jit
def _pack_lane(grad, word, call, lane: tl.constexpr, channel, tokens, channels, stride_token, stride_channel):
    """One group of four tokens for each call and channel: its two values and its four mask bits."""
    token = call * 16 + lane * 4
    x0 = _load_token(grad, token, channel, tokens, channels, stride_token, stride_channel)
    x1 = _load_token(grad, token + 1, channel, tokens, channels, stride_token, stride_channel)
    x2 = _load_token(grad, token + 2, channel, tokens, channels, stride_token, stride_channel)
    x3 = _load_token(grad, token + 3, channel, tokens, channels, stride_token, stride_channel)
    left, right, code = select24(x0, x1, x2, x3, one_to_two(word))
    nibble = tl.where(token < tokens, bits_of(code), 0)
    return left.to(grad.dtype.element_ty), right.to(grad.dtype.element_ty), nibble


@triton.jit
def _pack_kernel(
    grad,
    values,
    bits,
    seed,
    offset,
    tokens,
    channels,
    value_columns,
    byte_columns,
    stride_token,
    stride_channel,
    BLOCK_CALLS: tl.constexpr,
    BLOCK_CHANNELS: tl.constexpr,
):
    """Reads ``[16 * BLOCK_CALLS tokens, BLOCK_CHANNELS]`` once, writes it transposed: 8 values and 2 bytes a call."""
    first_call = tl.program_id(1).to(tl.int64) * BLOCK_CALLS
    first_channel = tl.program_id(0).to(tl.int64) * BLOCK_CHANNELS
    call = first_call + tl.arange(0, BLOCK_CALLS)[:, None]
    channel = first_channel + tl.arange(0, BLOCK_CHANNELS)[None, :]
    w0, w1, w2, w3 = philox_words(tl.load(seed), tl.load(offset), call * channels + channel)
    l0, r0, n0 = _pack_lane(grad, w0, call, 0, channel, tokens, channels, stride_token, stride_channel)
    l1, r1, n1 = _pack_lane(grad, w1, call, 1, channel, tokens, channels, stride_token, stride_channel)
    l2, r2, n2 = _pack_lane(grad, w2, call, 2, channel, tokens, channels, stride_token, stride_channel)
    l3, r3, n3 = _pack_lane(grad, w3, call, 3, channel, tokens, channels, stride_token, stride_channel)

    # A join appends an axis: the bits of the group's number first, high to low, then left and right.
    left = tl.join(tl.join(l0, l2), tl.join(l1, l3))
    right = tl.join(tl.join(r0, r2), tl.join(r1, r3))
    pairs = tl.reshape(tl.join(left, right), (BLOCK_CALLS, BLOCK_CHANNELS, 8))
    pairs = tl.reshape(tl.permute(pairs, (1, 0, 2)), (BLOCK_CHANNELS, BLOCK_CALLS * 8))
    octets = tl.join((n0 | (n1 << 4)).to(tl.uint8), (n2 | (n3 << 4)).to(tl.uint8))
    octets = tl.reshape(tl.permute(octets, (1, 0, 2)), (BLOCK_CHANNELS, BLOCK_CALLS * 2))

    row = first_channel + tl.arange(0, BLOCK_CHANNELS)[:, None]
    column = first_call * 8 + tl.arange(0, BLOCK_CALLS * 8)[None, :]
    tl.store(values + row * value_columns + column, pairs, mask=(row < channels) & (column < value_columns))
    column = first_call * 2 + tl.arange(0, BLOCK_CALLS * 2)[None, :]
    tl.store(bits + row * byte_columns + column, octets, mask=(row < channels) & (column < byte_columns))


def mvue24_triton(
    grad: Tensor, seed: Tensor, offset: Tensor, *, block_calls: int = 4, block_channels: int = 128, num_warps: int = 4
) -> Tensor:
    """Dense estimate of ``grad [tokens, channels]``; see ``planish_kernels.mvue24.mvue24``."""
    tokens, channels = grad.shape
    out = torch.empty((tokens, channels), dtype=grad.dtype, device=grad.device)
    if out.numel() == 0:
        return out
    grid = (triton.cdiv(channels, block_channels), triton.cdiv(tokens, 16 * block_calls))
    with torch.cuda.device_of(grad):
        _dense_kernel[grid](
            grad,
            out,
            seed,
            offset,
            tokens,
            channels,
            *grad.stride(),
            *out.stride(),
            BLOCK_CALLS=block_calls,
            BLOCK_CHANNELS=block_channels,
            num_warps=num_warps,
        )
    return out


def mvue24_pack_triton(
    grad: Tensor,
    seed: Tensor,
    offset: Tensor,
    *,
    block_calls: int | None = None,
    block_channels: int = 64,
    num_warps: int = 4,
) -> tuple[Tensor, Tensor]:
    """Packed transpose of the estimate; see ``planish_kernels.mvue24.mvue24_pack``."""
    tokens, channels = grad.shape
    if block_calls is None:
        # Sixteen calls write 256 bytes of a transposed row of 16-bit values; float32 tiles of that length fill the
        # registers (222 of 255 on sm_90). Fastest of a sweep on an H200.
        block_calls = 16 if grad.element_size() == 2 else 4
    groups = (tokens + 3) // 4
    values = torch.empty((channels, groups * 2), dtype=grad.dtype, device=grad.device)
    bits = torch.empty((channels, (groups + 1) // 2), dtype=torch.uint8, device=grad.device)
    if values.numel() == 0:
        return values, bits
    grid = (triton.cdiv(channels, block_channels), triton.cdiv(tokens, 16 * block_calls))
    with torch.cuda.device_of(grad):
        _pack_kernel[grid](
            grad,
            values,
            bits,
            seed,
            offset,
            tokens,
            channels,
            values.shape[1],
            bits.shape[1],
            *grad.stride(),
            BLOCK_CALLS=block_calls,
            BLOCK_CHANNELS=block_channels,
            num_warps=num_warps,
        )
    return values, bits
