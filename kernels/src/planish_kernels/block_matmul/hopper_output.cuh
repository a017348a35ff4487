// How the sums of a tile are written: as floats, or as codes of blocks. Read after hopper_machine.cuh.

constexpr float MAGIC = 12582912.f;  // beyond 1.5 * 2^23 a float has no fraction
constexpr float SMALLEST_SCALE = 7.52316384526264e-37f;

// ---- random numbers: philox/words.py --------------------------------------------------------------------------------

__device__ void philox(u32 (&words)[4], u64 seed, u64 offset, u64 counter) {
    u32 c0 = (u32)counter, c1 = (u32)(counter >> 32), c2 = (u32)offset, c3 = (u32)(offset >> 32);
    u32 k0 = (u32)seed, k1 = (u32)(seed >> 32);
#pragma unroll
    for (int round = 0; round < 7; ++round) {
        u64 first = (u64)0xD2511F53u * c0, second = (u64)0xCD9E8D57u * c2;
        c0 = (u32)(second >> 32) ^ c1 ^ k0, c1 = (u32)second, c2 = (u32)(first >> 32) ^ c3 ^ k1, c3 = (u32)first;
        k0 += 0x9E3779B9u, k1 += 0xBB67AE85u;
    }
    words[0] = c0, words[1] = c1, words[2] = c2, words[3] = c3;
}

__device__ float noise(u32 half) { return __uint_as_float(half | 0x43000001u) - 128.5f; }

// ---- codes: block_quantize/tile.py ----------------------------------------------------------------------------------

template <bool INT8> __device__ float block_scale(u32 largest) {
    float quotient = fmaxf(__fdiv_rn(__uint_as_float(largest), INT8 ? 127.f : 448.f), SMALLEST_SCALE);
    float rounded = __int_as_float((__float_as_int(quotient) + 0x7F) & -128);
    return largest < 0x7F800000u ? rounded : __int_as_float(0x7FFFFFFF);
}

// Where the scale is NaN, so is this.
__device__ float exact_ratio(float x, float scale, float inverse) {
    float near = __fmul_rn(x, inverse);
    return __fmaf_rn(__fmaf_rn(-near, scale, x), inverse, near);
}

template <bool INT8, bool STOCHASTIC> __device__ float moved(float ratio, u32 half) {
    if (!STOCHASTIC) return ratio;
    if (INT8) return __fadd_rn(ratio, noise(half));
    // The distance of the neighbours; see tile.py.
    float step = __int_as_float(__float_as_int(fmaxf(fabsf(ratio), 0.015625f)) & 0x7F800000) * 0.125f;
    float near = __fmaf_rn(noise(half), step, ratio);
    return __fmaf_rn(step, -MAGIC, __fmaf_rn(step, MAGIC, near));
}

// The codes of two ratios in the low bytes; a half of a word for each. The upper bytes are anything.
template <bool INT8, bool STOCHASTIC> __device__ u32 code_pair(float low, float high, u32 word) {
    low = moved<INT8, STOCHASTIC>(low, word & 0xFFFF), high = moved<INT8, STOCHASTIC>(high, word >> 16);
    if (INT8) return __byte_perm(__float_as_int(__fadd_rn(low, MAGIC)), __float_as_int(__fadd_rn(high, MAGIC)), 0x40);
    unsigned short pair;
    asm("cvt.rn.satfinite.e4m3x2.f32 %0, %1, %2;" : "=h"(pair) : "f"(high), "f"(low));
    return pair;
}

// ---- tiles ----------------------------------------------------------------------------------------------------------

// Among the four lanes that hold a row: word j of lane i becomes word i of lane j.
__device__ void turn(u32 (&w)[4], int lane) {
    u32 sent = lane & 1 ? w[0] : w[1], other = __shfl_xor_sync(~0u, sent, 1);
    lane & 1 ? w[0] = other : w[1] = other;
    sent = lane & 1 ? w[2] : w[3], other = __shfl_xor_sync(~0u, sent, 1);
    lane & 1 ? w[2] = other : w[3] = other;
    sent = lane & 2 ? w[0] : w[2], other = __shfl_xor_sync(~0u, sent, 2);
    lane & 2 ? w[0] = other : w[2] = other;
    sent = lane & 2 ? w[1] : w[3], other = __shfl_xor_sync(~0u, sent, 2);
    lane & 2 ? w[1] = other : w[3] = other;
}

template <int OUT> __device__ u32 pair_of(float low, float high) {
    u32 pair;
    if (OUT == BFLOAT16) asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(pair) : "f"(high), "f"(low));
    else asm("cvt.rn.f16x2.f32 %0, %1, %2;" : "=r"(pair) : "f"(high), "f"(low));
    return pair;
}

// Sums [64, 128] of a warpgroup: element 4 j + 2 h + e of a thread is in row 16 warp + 8 h + lane / 4, and in column
// 8 j + 2 (lane % 4) + e.
template <int OUT>
__device__ void store_dense(const float (&total)[64], void* out, i64 stride, int row, int col, int m, int n, int lane) {
#pragma unroll
    for (int half = 0; half < 2; ++half) {
        int r = row + 8 * half + lane / 4;
        if (OUT == FLOAT32) {
            float* line = static_cast<float*>(out) + r * stride;
            if (r < m) {
#pragma unroll
                for (int j = 0; j < 16; ++j) {
                    int c = col + 8 * j + 2 * (lane % 4);
                    if (c < n) line[c] = total[4 * j + 2 * half];
                    if (c + 1 < n) line[c + 1] = total[4 * j + 2 * half + 1];
                }
            }
            continue;
        }
        unsigned short* line = static_cast<unsigned short*>(out) + r * stride;
        bool is_whole = stride % 8 == 0 && ((u64)out & 15) == 0;
#pragma unroll
        for (int group = 0; group < 4; ++group) {
            u32 words[4];
#pragma unroll
            for (int j = 0; j < 4; ++j) {
                int at = 4 * (4 * group + j) + 2 * half;
                words[j] = pair_of<OUT>(total[at], total[at + 1]);
            }
            turn(words, lane);
            int c = col + 32 * group + 8 * (lane % 4);
            if (r >= m) continue;
            if (is_whole && c + 8 <= n) {
                *reinterpret_cast<uint4*>(line + c) = make_uint4(words[0], words[1], words[2], words[3]);
            } else {
#pragma unroll
                for (int e = 0; e < 8; ++e)
                    if (c + e < n) line[c + e] = (unsigned short)(words[e / 2] >> (16 * (e % 2)));
            }
        }
    }
}

// Among the four lanes that hold a row: 16 bits in the place of ``turn``'s words, two of them to a word, low half first.
__device__ void turn_halves(u32& first, u32& second, int lane) {
    u32 other = __shfl_xor_sync(~0u, lane & 2 ? first : second, 2);
    lane & 2 ? first = other : second = other;
    // Now the halves of each word change places, high ones of even lanes with low ones of odd lanes.
    u32 sent = __byte_perm(first, second, lane & 1 ? 0x5410 : 0x7632);
    other = __shfl_xor_sync(~0u, sent, 1);
    first = __byte_perm(first, other, lane & 1 ? 0x3254 : 0x5410);
    second = __byte_perm(second, other, lane & 1 ? 0x3276 : 0x7610);
}

// Sums of a tile of 128 rows as two warpgroups hand them over in shared memory: [warp][column / 8][lane][4].
__device__ float4* handed(float4* sums, int warp, int part, int lane) { return sums + (warp * 16 + part) * 32 + lane; }

// The larger magnitude; NaN if one is.
__device__ float larger(float most, float x) {
    asm("max.NaN.f32 %0, %0, %1;" : "+f"(most) : "f"(fabsf(x)));
    return most;
}

// Largest magnitudes of what a warp handed over, as integers: in the same order, and NaN is the largest of all.
template <int BLOCK> __device__ void store_maxima(float4* sums, int lane, int warp, u32* maxima) {
    constexpr int ACROSS = COLUMNS / BLOCK;
#pragma unroll
    for (int part = 0; part < ACROSS; ++part) {
        float largest = 0.f;
#pragma unroll
        for (int j = part * BLOCK / 8; j < (part + 1) * BLOCK / 8; ++j) {
            float4 four = *handed(sums, warp, j, lane);
            largest = larger(larger(larger(larger(largest, four.x), four.y), four.z), four.w);
        }
        u32 most = __reduce_max_sync(~0u, __float_as_uint(largest));
        if (lane == 0) maxima[part] = most;
    }
}

// Quantizes them. A warpgroup of its own does so, while the others are at the next tile; each of its warps has the rows of
// two of theirs. It reads twice, so that it needs few registers.
template <int BLOCK, bool INT8, bool STOCHASTIC>
__device__ void store_codes(float4* sums, unsigned char* out, float* out_scales, const Work& work, int tile_row, int col,
                            int lane, int writer, u64 seed, u64 offset, u32* maxima) {
    constexpr int ACROSS = COLUMNS / BLOCK, WARPS_DOWN = BLOCK / 16;
    bool is_whole = tile_row + 128 <= work.m && col + COLUMNS <= work.n && work.out_stride % 8 == 0 && ((u64)out & 7) == 0;
#pragma unroll 1
    for (int warp = 2 * writer; warp < 2 * writer + 2; ++warp)
        store_maxima<BLOCK>(sums, lane, warp, maxima + warp * ACROSS);
    asm volatile("bar.sync 1, 128;" ::: "memory");
#pragma unroll 1
    for (int warp = 2 * writer; warp < 2 * writer + 2; ++warp) {
        int row = tile_row + 16 * warp;
        float scale, inverse;
        // Not unrolled: registers are few.
#pragma unroll 1
        for (int group = 0; group < 4; ++group) {
            if (32 * group % BLOCK == 0) {
                int part = 32 * group / BLOCK;
                u32 most = 0;
#pragma unroll
                for (int w = 0; w < WARPS_DOWN; ++w)
                    most = max(most, maxima[(warp / WARPS_DOWN * WARPS_DOWN + w) * ACROSS + part]);
                scale = block_scale<INT8>(most);
                inverse = __fdiv_rn(1.f, scale);
                int block_row = row / BLOCK, block_col = col / BLOCK + part;
                if (lane == 0 && warp % WARPS_DOWN == 0 && row < work.m && block_col < work.out_scale_columns)
                    out_scales[(i64)block_row * work.out_scale_columns + block_col] = scale;
            }
            float4 four[4];
#pragma unroll
            for (int j = 0; j < 4; ++j) four[j] = *handed(sums, warp, 4 * group + j, lane);
            u32 drawn[2][4] = {};
            if (STOCHASTIC) {
                // Eight columns share a draw, four lanes hold them: each draws for one of four times eight, and they trade.
#pragma unroll
                for (int half = 0; half < 2; ++half) {
                    int r = row + 8 * half + lane / 4;
                    philox(drawn[half], seed, offset, (u64)((i64)((col + 32 * group) / 8 + lane % 4) * work.m + r));
                    turn(drawn[half], lane);
                }
            }
            unsigned char* line = out + (row + lane / 4) * work.out_stride + col + 32 * group + 8 * (lane % 4);
#pragma unroll
            for (int half = 0; half < 2; ++half, line += 8 * work.out_stride) {
                u32 words[4];
#pragma unroll
                for (int j = 0; j < 4; ++j) {
                    float low = half ? four[j].z : four[j].x, high = half ? four[j].w : four[j].y;
                    words[j] = code_pair<INT8, STOCHASTIC>(exact_ratio(low, scale, inverse), exact_ratio(high, scale, inverse),
                                                           drawn[half][j]);
                }
                u32 first = __byte_perm(words[0], words[1], 0x5410), second = __byte_perm(words[2], words[3], 0x5410);
                // Codes of a block with a NaN are zeros, and its scale says it.
                if (scale != scale) first = second = 0;
                turn_halves(first, second, lane);
                if (is_whole) {
                    *reinterpret_cast<uint2*>(line) = make_uint2(first, second);
                } else if (row + 8 * half + lane / 4 < work.m) {
                    int c = col + 32 * group + 8 * (lane % 4);
#pragma unroll
                    for (int e = 0; e < 8; ++e)
                        if (c + e < work.n) line[e] = (unsigned char)((e < 4 ? first : second) >> (8 * (e % 4)));
                }
            }
        }
    }
    asm volatile("bar.sync 1, 128;" ::: "memory");  // all have read the maxima: the next tile may write
}
