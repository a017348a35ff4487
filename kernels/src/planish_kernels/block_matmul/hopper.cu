// Products of block-scaled 8-bit matrices on Hopper: a [m, k] times b [n, k] transposed, both row-major.
//
// One warp feeds shared memory through TMA, stages of 128 codes along k. Each other warpgroup multiplies 64 rows by 128
// columns of an inner block with wgmma, and adds the sums, times their scale, to float sums that stay in registers, while
// the wgmma of other warpgroups runs; two warpgroups have registers for the sums of two inner blocks, and run their own
// next wgmma meanwhile. INT8 sums are exact: they are converted, which costs an instruction beside each multiply-add.
// Blocks of 128 have two scales a stage, which each thread loads a stage ahead; of smaller blocks there are too many, and
// three more warps put their products beside the codes.

typedef unsigned int u32;
typedef unsigned long long u64;
typedef long long i64;

struct alignas(64) TensorMap { unsigned char bytes[128]; };

constexpr int STAGE = 128;     // codes along k in a stage: rows of 128 bytes, as wide as the swizzle
constexpr int COLUMNS = 128;   // of a tile
constexpr int WRITER_REGISTERS = 72;  // of each thread that writes codes; four warpgroups have 512 together
constexpr int GROUP = 8;       // tiles of rows that share columns in the L2
constexpr float MAGIC = 12582912.f;  // beyond 1.5 * 2^23 a float has no fraction
constexpr float SMALLEST_SCALE = 7.52316384526264e-37f;

enum Out { FLOAT32, BFLOAT16, FLOAT16, CODES };

// ---- shared memory, barriers, TMA ----------------------------------------------------------------------------------

__device__ u32 shared_address(const void* pointer) { return static_cast<u32>(__cvta_generic_to_shared(pointer)); }

__device__ void barrier_init(u32 barrier, u32 count) {
    asm volatile("mbarrier.init.shared::cta.b64 [%0], %1;" ::"r"(barrier), "r"(count) : "memory");
}

__device__ void barrier_expect(u32 barrier, u32 bytes) {
    asm volatile("mbarrier.arrive.expect_tx.shared::cta.b64 _, [%0], %1;" ::"r"(barrier), "r"(bytes) : "memory");
}

__device__ void barrier_arrive(u32 barrier) {
    asm volatile("mbarrier.arrive.shared::cta.b64 _, [%0];" ::"r"(barrier) : "memory");
}

__device__ void barrier_wait(u32 barrier, u32 parity) {
    asm volatile(
        "{\n.reg .pred done;\nAGAIN:\nmbarrier.try_wait.parity.shared::cta.b64 done, [%0], %1;\n"
        "@done bra.uni DONE;\nbra.uni AGAIN;\nDONE:\n}" ::"r"(barrier), "r"(parity) : "memory");
}

__device__ void fetch(u32 to, const TensorMap* map, int x, int y, u32 barrier) {
    asm volatile(
        "cp.async.bulk.tensor.2d.shared::cluster.global.mbarrier::complete_tx::bytes [%0], [%1, {%2, %3}], [%4];" ::"r"(to),
        "l"(map), "r"(x), "r"(y), "r"(barrier) : "memory");
}

// ---- wgmma ---------------------------------------------------------------------------------------------------------

// Rows of 128 bytes, swizzled: groups of eight rows lie 1024 bytes apart.
__device__ u64 descriptor(u32 address) {
    return (u64)((address & 0x3FFFF) >> 4) | ((u64)1 << 16) | ((u64)64 << 32) | ((u64)1 << 62);
}

__device__ void wgmma_fence() { asm volatile("wgmma.fence.sync.aligned;" ::: "memory"); }
__device__ void wgmma_commit() { asm volatile("wgmma.commit_group.sync.aligned;" ::: "memory"); }
template <int IN_FLIGHT> __device__ void wgmma_wait() {
    asm volatile("wgmma.wait_group.sync.aligned %0;" ::"n"(IN_FLIGHT) : "memory");
}

#define EIGHT(kind, sums, i)                                                                                           \
    kind(sums[i]), kind(sums[i + 1]), kind(sums[i + 2]), kind(sums[i + 3]), kind(sums[i + 4]), kind(sums[i + 5]),      \
        kind(sums[i + 6]), kind(sums[i + 7])
#define SIXTY_FOUR(kind, sums)                                                                                         \
    EIGHT(kind, sums, 0), EIGHT(kind, sums, 8), EIGHT(kind, sums, 16), EIGHT(kind, sums, 24), EIGHT(kind, sums, 32),   \
        EIGHT(kind, sums, 40), EIGHT(kind, sums, 48), EIGHT(kind, sums, 56)
#define SUMS                                                                                                           \
    "{%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15, %16, %17, %18, %19, %20, %21, %22, %23, "   \
    "%24, %25, %26, %27, %28, %29, %30, %31, %32, %33, %34, %35, %36, %37, %38, %39, %40, %41, %42, %43, %44, %45, "    \
    "%46, %47, %48, %49, %50, %51, %52, %53, %54, %55, %56, %57, %58, %59, %60, %61, %62, %63}"
#define AS_INT(x) "+r"(x)
#define AS_FLOAT(x) "+f"(x)

__device__ void multiply(int (&sums)[64], u64 a, u64 b, int adds) {
    asm volatile("{\n.reg .pred p;\nsetp.ne.b32 p, %66, 0;\nwgmma.mma_async.sync.aligned.m64n128k32.s32.s8.s8 " SUMS
                 ", %64, %65, p;\n}" : SIXTY_FOUR(AS_INT, sums) : "l"(a), "l"(b), "r"(adds));
}

__device__ void multiply(float (&sums)[64], u64 a, u64 b, int adds) {
    asm volatile("{\n.reg .pred p;\nsetp.ne.b32 p, %66, 0;\nwgmma.mma_async.sync.aligned.m64n128k32.f32.e4m3.e4m3 " SUMS
                 ", %64, %65, p, 1, 1;\n}" : SIXTY_FOUR(AS_FLOAT, sums) : "l"(a), "l"(b), "r"(adds));
}

// The compiler must not move reads of the sums before the wait.
__device__ void settle(int (&sums)[64]) { asm volatile("" : SIXTY_FOUR(AS_INT, sums)::"memory"); }
__device__ void settle(float (&sums)[64]) { asm volatile("" : SIXTY_FOUR(AS_FLOAT, sums)::"memory"); }

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

struct Work {  // by value: what a launch is given
    i64 a_scale_rows, a_scale_cols, b_scale_rows, b_scale_cols;  // strides: of blocks along m or n, and along k
    i64 out_stride;
    int m, n, k, out_scale_columns;
};

template <int ROWS> struct Tiles {
    int down, across, count;
    __device__ Tiles(int m, int n) : down((m + ROWS - 1) / ROWS), across((n + COLUMNS - 1) / COLUMNS), count(down * across) {}
    __device__ void place(int tile, int& row, int& col) const {
        int first = tile / (GROUP * across) * GROUP, within = tile % (GROUP * across);
        int height = min(down - first, GROUP);
        row = first + within % height, col = within / height;
    }
};

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

template <bool INT8> struct Sums { typedef int type; };
template <> struct Sums<false> { typedef float type; };

// Products of the scales of a stage, in shared memory: [rows of blocks][inner blocks][columns of blocks].
template <int BLOCK, int GROUPS> struct Factors {
    static constexpr int PER = STAGE / BLOCK, ACROSS = COLUMNS / BLOCK, ROWS_EACH = BLOCK < 64 ? BLOCK : 64;
    static constexpr int DOWN = 64 * GROUPS / ROWS_EACH, COUNT = DOWN * PER * ACROSS;
};

// The scale of the sums of an inner block; zero outside the matrices.
template <int BLOCK, int GROUPS>
__device__ float factor_of(int entry, const float* a_scales, const float* b_scales, const Work& work, int row, int col,
                           int first, int inner_blocks) {
    typedef Factors<BLOCK, GROUPS> F;
    int part = entry % F::ACROSS, block = first + entry / F::ACROSS % F::PER, down = entry / F::ACROSS / F::PER;
    row += down * F::ROWS_EACH, col += part * BLOCK;
    if (row >= work.m || col >= work.n || block >= inner_blocks) return 0.f;
    return __ldg(a_scales + (i64)(row / BLOCK) * work.a_scale_rows + block * work.a_scale_cols) *
           __ldg(b_scales + (i64)(col / BLOCK) * work.b_scale_rows + block * work.b_scale_cols);
}

// Factors of the sums of inner blocks, one after the other: of blocks as long as a stage the product of two scales, loaded
// one ahead; of smaller ones they lie in shared memory. Zero outside the matrices.
template <int BLOCK, int GROUPS, bool IS_AHEAD = BLOCK == STAGE> struct Scales {
    float factor[1], next_a = 0.f, next_b = 0.f;
    const float *a, *b;
    i64 a_step, b_step;
    bool exists;

    __device__ Scales(const float* a_scales, const float* b_scales, const Work& work, int row, int col, const void*, int, int)
        : a(a_scales + (i64)(row / STAGE) * work.a_scale_rows), b(b_scales + (i64)(col / STAGE) * work.b_scale_rows),
          a_step(work.a_scale_cols), b_step(work.b_scale_cols), exists(row < work.m) {
        fetch();
    }
    __device__ void fetch() {
        if (exists) next_a = __ldg(a), next_b = __ldg(b);
    }
    // Go to the next inner block; ``more``: there is one behind it.
    __device__ void next(bool more, int) {
        factor[0] = next_a * next_b;
        a += a_step, b += b_step;
        if (more) fetch();
    }
};

template <int BLOCK, int GROUPS> struct Scales<BLOCK, GROUPS, false> {
    typedef Factors<BLOCK, GROUPS> F;
    float factor[F::ACROSS];
    const float* shared;

    __device__ Scales(const float*, const float*, const Work&, int, int, const float* factors, int group, int warp)
        : shared(factors + (BLOCK < 64 ? warp * 16 / BLOCK : group) * F::PER * F::ACROSS) {}
    // ``place``: of the inner block in shared memory.
    __device__ void next(bool, int place) {
#pragma unroll
        for (int part = 0; part < F::ACROSS; ++part) factor[part] = shared[place + part];
    }
};

// GROUPS: warpgroups that multiply, 64 rows each. STAGES of shared memory. To write codes takes one warpgroup more.
template <int BLOCK, int GROUPS, int STAGES, bool INT8, int OUT, bool STOCHASTIC>
__global__ __launch_bounds__(128 * (GROUPS + (OUT == CODES ? 2 : 1)), 1) void block_matmul(
    const __grid_constant__ TensorMap a_map, const __grid_constant__ TensorMap b_map, const float* __restrict__ a_scales,
    const float* __restrict__ b_scales, const float* __restrict__ bias, void* __restrict__ out,
    float* __restrict__ out_scales, const i64* __restrict__ seed, const i64* __restrict__ offset,
    const __grid_constant__ Work work) {
    typedef Factors<BLOCK, GROUPS> F;
    typedef typename Sums<INT8>::type Sum;
    constexpr int ROWS = 64 * GROUPS, PER = F::PER, ACROSS = F::ACROSS;
    static_assert(OUT != CODES || GROUPS == 2, "tiles of codes hold whole blocks");
    constexpr int FEEDERS = GROUPS + (OUT == CODES ? 1 : 0);  // the warpgroup that feeds
    constexpr bool IS_AHEAD = BLOCK == STAGE;
    // Sums of one wgmma alone, as blocks of 32 have them, gain nothing from the next one, and take their registers twice.
    constexpr bool IS_PIPELINED = GROUPS == 2 && BLOCK > 32;
    constexpr int FEEDER_REGISTERS = OUT == CODES && IS_AHEAD ? 24 : GROUPS == 3 ? 32 : 40;
    constexpr u32 A_BYTES = ROWS * STAGE, B_BYTES = COLUMNS * STAGE, STAGE_BYTES = A_BYTES + B_BYTES;
    extern __shared__ unsigned char memory[];
    u32 base = (shared_address(memory) + 1023) & ~1023u;
    __shared__ alignas(8) u64 barriers[2 * STAGES];
    __shared__ alignas(16) float factors[IS_AHEAD ? 1 : STAGES][IS_AHEAD ? 1 : F::COUNT];
    __shared__ u32 maxima[OUT == CODES ? 4 * GROUPS * ACROSS : 1];
    __shared__ alignas(8) u64 handover[2];
    u32 full = shared_address(barriers), empty = full + 8 * STAGES;
    u32 given = shared_address(handover), taken = given + 8;
    float4* sums_of_tile = reinterpret_cast<float4*>(memory + (base - shared_address(memory)) + STAGES * STAGE_BYTES);
    // From one lane, so that the compiler knows it the same in all, and addresses shared memory in uniform registers.
    int group = __shfl_sync(~0u, threadIdx.x / 128, 0), warp = threadIdx.x / 32, lane = threadIdx.x % 32;
    if (threadIdx.x == 0) {
        for (int s = 0; s < STAGES; ++s) {
            barrier_init(full + 8 * s, IS_AHEAD ? 1 : 2);  // codes, and factors
            barrier_init(empty + 8 * s, 4 * GROUPS);
        }
        barrier_init(given, 4 * GROUPS), barrier_init(taken, 4);
        asm volatile("fence.mbarrier_init.release.cluster;" ::: "memory");
    }
    __syncthreads();

    Tiles<ROWS> tiles(work.m, work.n);
    int stages = (work.k + STAGE - 1) / STAGE, inner_blocks = (work.k + BLOCK - 1) / BLOCK;

    if (group == FEEDERS) {
        asm volatile("setmaxnreg.dec.sync.aligned.u32 %0;" ::"n"(FEEDER_REGISTERS));
        // One warp fetches codes, three take turns at the factors: each has three stages' time for its loads.
        int feeder = warp - 4 * FEEDERS, turn = 0;
        if (IS_AHEAD && feeder > 0) return;
        u32 stage = 0, parity = 1;
        for (int tile = blockIdx.x; tile < tiles.count; tile += gridDim.x) {
            int tile_row, tile_col;
            tiles.place(tile, tile_row, tile_col);
            int row = tile_row * ROWS, col = tile_col * COLUMNS;
            for (int s = 0; s < stages; ++s) {
                u32 here = base + stage * STAGE_BYTES, ready = full + 8 * stage;
                if (feeder == 0) {
                    if (lane == 0) {
                        barrier_wait(empty + 8 * stage, parity);
                        barrier_expect(ready, STAGE_BYTES);
                        fetch(here, &a_map, s * STAGE, row, ready);
                        fetch(here + A_BYTES, &b_map, s * STAGE, col, ready);
                    }
                } else if (feeder == turn + 1) {
                    if constexpr (!IS_AHEAD) {
                        constexpr int EACH = (F::COUNT + 31) / 32;
                        float mine[EACH];
#pragma unroll
                        for (int i = 0; i < EACH; ++i) {
                            int entry = lane + 32 * i;
                            if (entry < F::COUNT)
                                mine[i] = factor_of<BLOCK, GROUPS>(entry, a_scales, b_scales, work, row, col, s * PER,
                                                                   inner_blocks);
                        }
                        barrier_wait(empty + 8 * stage, parity);
#pragma unroll
                        for (int i = 0; i < EACH; ++i)
                            if (lane + 32 * i < F::COUNT) factors[stage][lane + 32 * i] = mine[i];
                        __syncwarp();
                        if (lane == 0) barrier_arrive(ready);
                    }
                }
                if (++turn == 3) turn = 0;
                if (++stage == STAGES) stage = 0, parity ^= 1;
            }
        }
    } else if (group == GROUPS) {
        if constexpr (OUT == CODES) {
            asm volatile("setmaxnreg.dec.sync.aligned.u32 %0;" ::"n"(WRITER_REGISTERS));
            u32 parity = 0;
            for (int tile = blockIdx.x; tile < tiles.count; tile += gridDim.x) {
                int tile_row, tile_col;
                tiles.place(tile, tile_row, tile_col);
                barrier_wait(given, parity);
                parity ^= 1;
                store_codes<BLOCK, INT8, STOCHASTIC>(
                    sums_of_tile, static_cast<unsigned char*>(out), out_scales, work, tile_row * ROWS, tile_col * COLUMNS,
                    lane, warp - 4 * GROUPS, STOCHASTIC ? (u64)*seed : 0, STOCHASTIC ? (u64)*offset : 0, maxima);
                if (lane == 0) barrier_arrive(taken);
            }
        }
    } else {
        asm volatile("setmaxnreg.inc.sync.aligned.u32 %0;" ::"n"(
            OUT == CODES ? (512 - FEEDER_REGISTERS - WRITER_REGISTERS) / 2 : GROUPS == 3 ? 152 : 232));
        u32 stage = 0, parity = 0, taken_parity = 1;
        int inner = 0;
        for (int tile = blockIdx.x; tile < tiles.count; tile += gridDim.x) {
            int tile_row, tile_col;
            tiles.place(tile, tile_row, tile_col);
            float total[64];
#pragma unroll
            for (int i = 0; i < 64; ++i) total[i] = 0.f;
            Scales<BLOCK, GROUPS> scales(a_scales, b_scales, work, tile_row * ROWS + group * 64, tile_col * COLUMNS, factors[0],
                                         group, warp);
            // Waits for the stage of an inner block, and begins its sums; the barrier to arrive at when they are there, or 0.
            auto begin = [&](Sum(&sums)[64], int& at) {
                u32 here = base + stage * STAGE_BYTES;
                u64 a = descriptor(here + group * 64 * STAGE), b = descriptor(here + A_BYTES);
                // A pipeline waits for each inner block of a stage, though it is there since the first: where a branch goes
                // around the wait, the compiler takes every wgmma to depend on the one before.
                if (IS_PIPELINED || inner == 0) barrier_wait(full + 8 * stage, parity);
                wgmma_fence();
#pragma unroll
                for (int part = 0; part < BLOCK / 32; ++part) {
                    int at = 2 * (inner * (BLOCK / 32) + part);  // 32 bytes, in units of 16
                    multiply(sums, a + at, b + at, part > 0);
                }
                wgmma_commit();
                at = stage * F::COUNT + inner * ACROSS;
                u32 begun = 0;
                if (++inner == PER) {
                    begun = empty + 8 * stage, inner = 0;
                    if (++stage == STAGES) stage = 0, parity ^= 1;
                }
                return begun;
            };
            // Adds them. Each warp says for itself that it is done with a stage: the others may not have come so far.
            auto add = [&](Sum(&sums)[64], u32 begun) {
                settle(sums);
                if ((PER == 1 || begun) && lane == 0) barrier_arrive(begun);
#pragma unroll
                for (int i = 0; i < 64; ++i)
                    total[i] = __fmaf_rn((float)sums[i], scales.factor[8 * (i / 4) / BLOCK], total[i]);
            };
            int blocks = stages * PER;
            if constexpr (IS_PIPELINED) {
                Sum even[64], odd[64];
                int even_at, odd_at;
                u32 even_begun = begin(even, even_at), odd_begun;
                int s = 0;
                for (; s + 2 < blocks; s += 2) {
                    odd_begun = begin(odd, odd_at);
                    scales.next(true, even_at);
                    wgmma_wait<1>();
                    add(even, even_begun);
                    even_begun = begin(even, even_at);
                    scales.next(true, odd_at);
                    wgmma_wait<1>();
                    add(odd, odd_begun);
                }
                if (s + 1 < blocks) {
                    odd_begun = begin(odd, odd_at);
                    scales.next(true, even_at);
                    wgmma_wait<1>();
                    add(even, even_begun);
                    scales.next(false, odd_at);
                    wgmma_wait<0>();
                    add(odd, odd_begun);
                } else {
                    scales.next(false, even_at);
                    wgmma_wait<0>();
                    add(even, even_begun);
                }
            } else {
                constexpr int UNROLLED = BLOCK == 32 ? PER : 1;
                for (int s = 0; s < blocks; s += UNROLLED) {
#pragma unroll
                    for (int ahead = 1; ahead <= UNROLLED; ++ahead) {
                        Sum sums[64];
                        int at;
                        u32 begun = begin(sums, at);
                        scales.next(s + ahead < blocks, at);
                        wgmma_wait<0>();
                        add(sums, begun);
                    }
                }
            }
            int row = tile_row * ROWS + 16 * warp, col = tile_col * COLUMNS;
            if (bias != nullptr) {
#pragma unroll
                for (int j = 0; j < 16; ++j)
#pragma unroll
                    for (int e = 0; e < 2; ++e) {
                        int c = col + 8 * j + 2 * (lane % 4) + e;
                        float added = c < work.n ? __ldg(bias + c) : 0.f;
                        // Not outside the matrix: what is there must stay zero, or it would widen a block's scale.
                        if (row + lane / 4 < work.m) total[4 * j + e] += added;
                        if (row + lane / 4 + 8 < work.m) total[4 * j + 2 + e] += added;
                    }
            }
            if constexpr (OUT == CODES) {
                barrier_wait(taken, taken_parity);
                taken_parity ^= 1;
#pragma unroll
                for (int j = 0; j < 16; ++j)
                    *handed(sums_of_tile, warp, j, lane) =
                        make_float4(total[4 * j], total[4 * j + 1], total[4 * j + 2], total[4 * j + 3]);
                __syncwarp();
                if (lane == 0) barrier_arrive(given);
            } else {
                store_dense<OUT>(total, out, work.out_stride, row, col, work.m, work.n, lane);
            }
        }
    }
}
