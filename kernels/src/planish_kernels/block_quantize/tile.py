"""Tiles of scaled blocks inside Triton kernels: one row of blocks, a few side by side, read and written in registers.

A tile is ``[BLOCK, BLOCK * ACROSS]``: rows of at least 128 contiguous bytes, scales in a small vector.
"""

# mypy: disable-error-code="no-untyped-def"

from __future__ import annotations

import os

import torch
import triton
import triton.language as tl

from planish_kernels.philox.triton import IS_COMPILED, tile_noise

TILE_COLUMNS = 128
"""Least columns of a tile."""


CAST_ROUNDS = tl.constexpr(os.environ.get("TRITON_INTERPRET") != "1")
"""Whether a cast to float8 rounds to nearest, ties to even, as GPUs do it; Triton's interpreter cuts small numbers."""


_CONVERTED_BYTE = "bfe.s32 word, $4, {bit}, 8; cvt.rn.f32.s32 ${place}, word; "
# As the last byte of 2^23, a code and 128 (its first bit the other way) are a float32.
_PLACED_BYTE = (
    "xor.b32 word, $4, 0x80808080; prmt.b32 word, word, 0x4B000000, 0x754{place}; mov.b32 number, word; "
    "sub.f32 ${place}, number, 0f4B000080; "
)


def _byte_values(converted: int) -> tl.constexpr:
    """PTX for the float32 values of the four int8 of a word: some converted, the others placed.

    A conversion is one instruction, of which a GPU does an eighth as many a clock as of the two that place a byte.
    """
    forms = [_CONVERTED_BYTE] * converted + [_PLACED_BYTE] * (4 - converted)
    steps = "".join(form.format(bit=8 * place, place=place) for place, form in enumerate(forms))
    return tl.constexpr("{ .reg .b32 word; .reg .f32 number; " + steps + "}")


_FOUR_BYTES = _byte_values(4)
_FOUR_BYTES_FEW_CONVERTED = _byte_values(2)


def blocks_across(block: int) -> int:
    """How many blocks side by side make a tile."""
    return max(1, TILE_COLUMNS // block)


def tile_warps(block: int) -> int:
    """Warps of a program that holds a tile: 32 elements a thread, few enough to stay in registers."""
    return max(4, block // 8)


def chunk_rows(block: int) -> int:
    """Rows of a tile that a program holds at a time, of kernels that can go over it twice.

    All of a small block: then it is read and computed once. The values of a large one take all registers of the few
    programs that a multiprocessor has room for, and nothing hides what those wait for.
    """
    return block if block < 128 else 16


def chunk_warps(block: int, chunk: int) -> int:
    """Warps of such a program: 32 elements a thread if it holds the tile, 16 (one load of codes) if a part of it."""
    return tile_warps(block) if chunk == block else 4


def is_whole(rows: int, cols: int, block: int, across: int) -> bool:
    """Whether tiles divide the matrix, so that kernels need not ask where it ends."""
    return rows % block == 0 and cols % (block * across) == 0


def largest_code(code_dtype: torch.dtype) -> float:
    """The largest code of a dtype."""
    return 127.0 if code_dtype is torch.int8 else 448.0


@triton.jit
def block_scale(largest_magnitude, LARGEST: tl.constexpr):
    """The scale of a block from its largest magnitude; the arithmetic is that of ``reference.block_scales``."""
    quotient = tl.maximum(tl.div_rn(largest_magnitude, LARGEST), 7.52316384526264e-37)
    rounded = ((quotient.to(tl.int32, bitcast=True) + 0x7F) & -128).to(tl.float32, bitcast=True)
    return tl.where(largest_magnitude < float("inf"), rounded, float("nan"))


@triton.jit
def _ratio(values, scale, inverse):
    """The float32 quotient ``values / scale``, rounded once.

    ``inverse`` is ``1 / scale``, rounded. The product with it is off by less than two units in the last place; the
    remainder is exact, for a scale has 17 bits; and no quotient by 17 bits lies nearer to the middle of two floats
    than the correction is wrong. Three instructions, where a division that is right for any divisor takes ten.
    """
    near = values * inverse
    # The scale is negated, not the product: that would be computed a second time.
    return tl.fma(tl.fma(near, -scale, values), inverse, near)


@triton.jit
def exact_ratio(values, scale, inverse):
    """``_ratio``, but zero where the scale is NaN."""
    return tl.where(scale == scale, _ratio(values, scale, inverse), 0.0)


@triton.jit
def round_codes(ratio, noise, IS_INT8: tl.constexpr, STOCHASTIC: tl.constexpr):
    """int8 or float8 e4m3 codes of ratios that do not exceed the largest code by more than their last bit.

    ``noise`` is that of ``tile_noise``, for float8 an eighth of it.
    """
    # One return: Triton compiles what follows a return inside of a branch too, and compares the types.
    if IS_INT8:
        moved = ratio
        if STOCHASTIC:
            moved = ratio + noise
        # Beyond 1.5 * 2^23 float32 has no fraction left, and its low byte is that of the integer.
        codes = (moved + 12582912.0).to(tl.int32, bitcast=True).to(tl.int8)
    else:
        nearest = ratio
        if STOCHASTIC or not CAST_ROUNDS:
            # The power of two below the ratio, eight times the distance of its neighbours: an eighth of it as a factor
            # is exact, and one of a number that is known. 1.5 * 2^23 distances on there is no fraction of one left.
            power = tl.maximum(tl.abs(ratio), 0.015625).to(tl.int32, bitcast=True) & 0x7F800000
            power = power.to(tl.float32, bitcast=True)
            if STOCHASTIC:
                nearest = tl.fma(noise, power, ratio)
            nearest = tl.fma(power, -1572864.0, tl.fma(power, 1572864.0, nearest))
        codes = nearest.to(tl.float8e4nv)
    return codes


@triton.jit
def wide(values):
    """Values of a dense tile as float32."""
    if values.dtype == tl.bfloat16 and IS_COMPILED:
        # One instruction each; Triton takes the pair apart first.
        pair: tl.constexpr = "shl.b32 $0, $2, 16; and.b32 $1, $2, 0xFFFF0000;"
        floats = tl.inline_asm_elementwise(pair, "=r,=r,r", [values], tl.float32, True, 2)
    else:
        floats = values.to(tl.float32)
    return floats


@triton.jit
def code_values(code, FEW_CONVERTED: tl.constexpr = False):
    """The numbers that int8 or float8 codes stand for, float32.

    Triton takes words of int8 apart to convert each; a GPU converts any byte of a word. ``FEW_CONVERTED``: for kernels
    with many other uses for the converter, which also does exponentials and reciprocals.
    """
    if code.dtype == tl.int8 and IS_COMPILED:
        words: tl.constexpr = _FOUR_BYTES_FEW_CONVERTED if FEW_CONVERTED else _FOUR_BYTES
        values = tl.inline_asm_elementwise(words, "=f,=f,=f,=f,r", [code], tl.float32, True, 4)
    else:
        values = code.to(tl.float32)
    return values


@triton.jit
def spread(scale, ROWS: tl.constexpr, BLOCK: tl.constexpr, ACROSS: tl.constexpr):
    """Scales [ACROSS] of blocks side by side, for each entry of ``ROWS`` rows of them; one is left to be broadcast.

    Whole rather than one row to be broadcast: the layout that Triton gives the row would hold all rows in each thread,
    and spread to what is computed from it.
    """
    wide = scale
    if ACROSS > 1:
        wide = tl.broadcast_to(scale[None, :, None], (ROWS, ACROSS, BLOCK))
        wide = tl.reshape(wide, (ROWS, ACROSS * BLOCK))
    return wide


@triton.jit
def _scale_places(first_row, first_col, scale_columns, BLOCK: tl.constexpr, ACROSS: tl.constexpr, scale_stride=None):
    """Where the scales of a tile lie, and which of them exist: a scalar where there is one."""
    within = first_col // BLOCK
    if ACROSS > 1:
        within = within + tl.arange(0, ACROSS)
    if scale_stride is None:
        place = (first_row // BLOCK).to(tl.int64) * scale_columns + within
    else:
        place = (first_row // BLOCK).to(tl.int64) * scale_stride + within
    return place, within < scale_columns


@triton.jit
def tile_places(first_row, first_col, rows, cols, ROWS: tl.constexpr, COLUMNS: tl.constexpr, row_stride=None):
    """Where ``ROWS`` by ``COLUMNS`` entries lie in a row-major matrix ``[rows, cols]``, and which of them exist.

    ``row_stride`` is that of the matrix where it is part of a wider one.
    """
    row = first_row + tl.arange(0, ROWS)[:, None]
    col = first_col + tl.arange(0, COLUMNS)[None, :]
    inside = (row < rows) & (col < cols)
    if row_stride is None:
        place = row.to(tl.int64) * cols + col
    else:
        place = row.to(tl.int64) * row_stride + col
    return place, inside


@triton.jit
def load_scales(
    scales, first_row, first_col, scale_columns, BLOCK: tl.constexpr, ACROSS: tl.constexpr, IS_WHOLE: tl.constexpr
):
    """The scales ``[ACROSS]`` of a tile, or one scalar; zero where there is no block."""
    place, exists = _scale_places(first_row, first_col, scale_columns, BLOCK, ACROSS)
    if IS_WHOLE:
        scale = tl.load(scales + place)
    else:
        scale = tl.load(scales + place, mask=exists, other=0.0)
    return scale


@triton.jit
def load_rows(
    codes, scale, first_row, first_col, rows, cols,
    ROWS: tl.constexpr, BLOCK: tl.constexpr, ACROSS: tl.constexpr, IS_WHOLE: tl.constexpr,
    FEW_CONVERTED: tl.constexpr = False,
):  # fmt: skip
    """The values of some rows of a tile of contiguous codes ``[rows, cols]``, float32; zero outside the matrix."""
    place, inside = tile_places(first_row, first_col, rows, cols, ROWS, BLOCK * ACROSS)
    if IS_WHOLE:
        code = tl.load(codes + place)
    else:
        code = tl.load(codes + place, mask=inside, other=0.0)
    return code_values(code, FEW_CONVERTED) * spread(scale, ROWS, BLOCK, ACROSS)


@triton.jit
def load_tile(
    codes, scales, first_row, first_col, rows, cols, scale_columns,
    BLOCK: tl.constexpr, ACROSS: tl.constexpr, IS_WHOLE: tl.constexpr, FEW_CONVERTED: tl.constexpr = False,
):  # fmt: skip
    """The values of a tile of contiguous codes ``[rows, cols]``, float32; zero outside the matrix."""
    scale = load_scales(scales, first_row, first_col, scale_columns, BLOCK, ACROSS, IS_WHOLE)
    return load_rows(codes, scale, first_row, first_col, rows, cols, BLOCK, BLOCK, ACROSS, IS_WHOLE, FEW_CONVERTED)


@triton.jit
def magnitudes(
    values, first_row, first_col, rows, cols,
    ROWS: tl.constexpr, BLOCK: tl.constexpr, ACROSS: tl.constexpr, IS_WHOLE: tl.constexpr,
):  # fmt: skip
    """Magnitudes of some rows of a tile; zero outside the matrix."""
    if not IS_WHOLE:
        _, inside = tile_places(first_row, first_col, rows, cols, ROWS, BLOCK * ACROSS)
        values = tl.where(inside, values, 0.0)
    return tl.abs(values)


@triton.jit
def larger(a, b):
    """The larger of two magnitudes; NaN if one is, so that its block shows it."""
    return tl.maximum(a, b, propagate_nan=tl.PropagateNan.ALL)


@triton.jit
def _most(magnitude, AXIS: tl.constexpr):
    """The largest of magnitudes along an axis; NaN if one is, so that its block shows it."""
    if IS_COMPILED:
        most = tl.reduce(magnitude, AXIS, larger)
    else:
        # The interpreter takes long for functions that it does not know. As integers magnitudes are in the same order,
        # and NaN is the largest of all.
        most = tl.max(magnitude.to(tl.int32, bitcast=True) & 0x7FFFFFFF, AXIS).to(tl.float32, bitcast=True)
    return most


@triton.jit
def tile_scale(magnitude, ROWS: tl.constexpr, BLOCK: tl.constexpr, ACROSS: tl.constexpr, LARGEST: tl.constexpr):
    """The scales ``[ACROSS]`` of a tile, or one scalar, from magnitudes ``[ROWS, BLOCK * ACROSS]``."""
    # Columns first: a thread holds many of a row.
    if ACROSS > 1:
        most = _most(_most(tl.reshape(magnitude, (ROWS, ACROSS, BLOCK)), 2), 0)
    else:
        most = _most(_most(magnitude, 1), 0)
    return block_scale(most, LARGEST)


@triton.jit
def load_draw(seed, offset, STOCHASTIC: tl.constexpr):
    """Seed and offset of the noise; what is not drawn takes any."""
    # Once for a program: what a program stores could change them, for all that the compiler knows.
    if STOCHASTIC:
        return tl.load(seed), tl.load(offset)
    else:
        return 0, 0


@triton.jit
def round_rows(
    values, scale, draw, first_row, first_col, rows,
    ROWS: tl.constexpr, BLOCK: tl.constexpr, ACROSS: tl.constexpr, IS_INT8: tl.constexpr, STOCHASTIC: tl.constexpr,
):  # fmt: skip
    """Codes of some rows of a float32 tile whose scales are known; ``draw`` is what ``load_draw`` gave."""
    inverse = tl.div_rn(1.0, scale)
    ratio = _ratio(values, spread(scale, ROWS, BLOCK, ACROSS), spread(inverse, ROWS, BLOCK, ACROSS))
    noise = ratio
    if STOCHASTIC:
        noise = tile_noise(draw[0], draw[1], first_row, first_col, rows, ROWS, BLOCK * ACROSS, not IS_INT8)
    return _cleared(round_codes(ratio, noise, IS_INT8, STOCHASTIC), scale, ROWS, BLOCK, ACROSS)


@triton.jit
def _cleared(rounded, scale, ROWS: tl.constexpr, BLOCK: tl.constexpr, ACROSS: tl.constexpr):
    """Codes, but zero in blocks whose scale is NaN: four at a time, which a choice between numbers would not be."""
    keep = spread(tl.where(scale == scale, -1, 0).to(tl.int8), ROWS, BLOCK, ACROSS)
    codes = rounded.to(tl.int8, bitcast=True)
    if IS_COMPILED:
        codes = tl.inline_asm_elementwise("and.b32 $0, $1, $2;", "=r,r,r", [codes, keep], tl.int8, True, 4)
    else:
        codes = codes & keep
    return codes.to(rounded.dtype, bitcast=True)


@triton.jit
def store_rows(
    rounded, codes, first_row, first_col, rows, cols,
    ROWS: tl.constexpr, BLOCK: tl.constexpr, ACROSS: tl.constexpr, IS_WHOLE: tl.constexpr, row_stride=None,
):  # fmt: skip
    """Write codes of some rows of a tile to row-major ``[rows, cols]``; the stride is that of a wider matrix."""
    place, inside = tile_places(first_row, first_col, rows, cols, ROWS, BLOCK * ACROSS, row_stride)
    if IS_WHOLE:
        tl.store(codes + place, rounded)
    else:
        tl.store(codes + place, rounded, mask=inside)


@triton.jit
def store_scales(
    scale, scales, first_row, first_col, scale_columns,
    BLOCK: tl.constexpr, ACROSS: tl.constexpr, IS_WHOLE: tl.constexpr, scale_stride=None,
):  # fmt: skip
    """Write the scales of a tile; the stride is that of a wider matrix."""
    place, exists = _scale_places(first_row, first_col, scale_columns, BLOCK, ACROSS, scale_stride)
    if IS_WHOLE:
        tl.store(scales + place, scale)
    else:
        tl.store(scales + place, scale, mask=exists)


@triton.jit
def quantized(
    values, seed, offset, first_row, first_col, rows, cols,
    BLOCK: tl.constexpr, ACROSS: tl.constexpr, IS_WHOLE: tl.constexpr, LARGEST: tl.constexpr,
    IS_INT8: tl.constexpr, STOCHASTIC: tl.constexpr,
):  # fmt: skip
    """Quantize a float32 tile: its codes, and its scales ``[ACROSS]``, or one scalar."""
    magnitude = magnitudes(values, first_row, first_col, rows, cols, BLOCK, BLOCK, ACROSS, IS_WHOLE)
    scale = tile_scale(magnitude, BLOCK, BLOCK, ACROSS, LARGEST)
    draw = load_draw(seed, offset, STOCHASTIC)
    return round_rows(values, scale, draw, first_row, first_col, rows, BLOCK, BLOCK, ACROSS, IS_INT8, STOCHASTIC), scale


@triton.jit
def store_quantized(
    rounded, scale, codes, scales, first_row, first_col, rows, cols, scale_columns,
    BLOCK: tl.constexpr, ACROSS: tl.constexpr, IS_WHOLE: tl.constexpr,
):  # fmt: skip
    """Write what ``quantized`` gave: row-major codes ``[rows, cols]``, and scales."""
    store_rows(rounded, codes, first_row, first_col, rows, cols, BLOCK, BLOCK, ACROSS, IS_WHOLE)
    store_scales(scale, scales, first_row, first_col, scale_columns, BLOCK, ACROSS, IS_WHOLE)


@triton.jit
def store_tile(
    values, codes, scales, first_row, first_col, rows, cols, scale_columns,
    BLOCK: tl.constexpr, ACROSS: tl.constexpr, IS_WHOLE: tl.constexpr, LARGEST: tl.constexpr, IS_INT8: tl.constexpr,
):  # fmt: skip
    """Quantize a float32 tile to nearest and write its codes and scales."""
    rounded, scale = quantized(
        values, codes, codes, first_row, first_col, rows, cols, BLOCK, ACROSS, IS_WHOLE, LARGEST, IS_INT8, False
    )
    store_quantized(
        rounded, scale, codes, scales, first_row, first_col, rows, cols, scale_columns, BLOCK, ACROSS, IS_WHOLE
    )
