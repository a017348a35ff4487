// Products of block-scaled 8-bit matrices on Hopper: a [m, k] times b [n, k] transposed, both row-major.
//
// One warp feeds shared memory through TMA, stages of 128 codes along k; three more put the products of the scales of a
// stage beside its codes. Each other warpgroup multiplies 64 rows by 128 columns of an inner block with wgmma, and adds
// the sums, times their scale, to float sums that stay in registers, while the wgmma of other warpgroups runs. INT8 sums
// are exact: they are converted, which costs an instruction of the integer pipe beside the multiply-add of the other.

typedef unsigned int u32;
typedef unsigned long long u64;
typedef long long i64;

struct alignas(64) TensorMap { unsigned char bytes[128]; };

constexpr int STAGE = 128;     // codes along k in a stage: rows of 128 bytes, as wide as the swizzle
constexpr int COLUMNS = 128;   // of a tile
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
__device__ void wgmma_wait() { asm volatile("wgmma.wait_group.sync.aligned 0;" ::: "memory"); }

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

struct Words { u32 w[4]; };

__device__ Words philox(u64 seed, u64 offset, u64 counter) {
    u32 c0 = (u32)counter, c1 = (u32)(counter >> 32), c2 = (u32)offset, c3 = (u32)(offset >> 32);
    u32 k0 = (u32)seed, k1 = (u32)(seed >> 32);
#pragma unroll
    for (int round = 0; round < 10; ++round) {
        u32 high0 = __umulhi(0xD2511F53u, c0), low0 = 0xD2511F53u * c0;
        u32 high1 = __umulhi(0xCD9E8D57u, c2), low1 = 0xCD9E8D57u * c2;
        c0 = high1 ^ c1 ^ k0, c1 = low1, c2 = high0 ^ c3 ^ k1, c3 = low0;
        k0 += 0x9E3779B9u, k1 += 0xBB67AE85u;
    }
    return {{c0, c1, c2, c3}};
}

__device__ float uniform(u32 word) { return __uint_as_float((word >> 9) | 0x3F800000u) - 1.f; }

// ---- codes: block_quantize/tile.py ----------------------------------------------------------------------------------

template <bool INT8> __device__ float block_scale(float largest) {
    float quotient = fmaxf(__fdiv_rn(largest, INT8 ? 127.f : 448.f), SMALLEST_SCALE);
    float rounded = __int_as_float((__float_as_int(quotient) + 0x7F) & -128);
    return largest < __int_as_float(0x7F800000) ? rounded : __int_as_float(0x7FFFFFFF);
}

template <bool STOCHASTIC> __device__ float to_integer(float x, float u) {
    return STOCHASTIC ? floorf(__fadd_rn(x, u)) : __fsub_rn(__fadd_rn(x, MAGIC), MAGIC);
}

template <bool INT8, bool STOCHASTIC> __device__ u32 code(float ratio, float u) {
    if (INT8) return (u32)(int)fminf(fmaxf(to_integer<STOCHASTIC>(ratio, u), -127.f), 127.f) & 0xFF;
    float step = __int_as_float((__float_as_int(fmaxf(fabsf(ratio), 0.015625f)) & 0x7F800000) - (3 << 23));
    float value = __fmul_rn(to_integer<STOCHASTIC>(__fdiv_rn(ratio, step), u), step);
    value = fminf(fmaxf(value, -448.f), 448.f);
    unsigned short pair;
    asm("cvt.rn.satfinite.e4m3x2.f32 %0, %1, %2;" : "=h"(pair) : "f"(0.f), "f"(value));
    return pair & 0xFF;
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

template <int BLOCK, int GROUPS, bool INT8, bool STOCHASTIC>
__device__ void store_codes(float (&total)[64], unsigned char* out, float* out_scales, const Work& work, int tile_row,
                            int row, int col, int lane, int warp, u64 seed, u64 offset, float* maxima) {
    constexpr int ACROSS = COLUMNS / BLOCK;
    // What lies outside the matrix must not widen a block's scale, though a bias reaches there.
    float largest[ACROSS];
#pragma unroll
    for (int part = 0; part < ACROSS; ++part) largest[part] = 0.f;
#pragma unroll
    for (int j = 0; j < 16; ++j)
#pragma unroll
        for (int e = 0; e < 4; ++e) {
            int r = row + 8 * (e / 2) + lane / 4, c = col + 8 * j + 2 * (lane % 4) + e % 2;
            float value = r < work.m && c < work.n ? total[4 * j + e] : 0.f;
            total[4 * j + e] = value;
            float magnitude = value == value ? fabsf(value) : __int_as_float(0x7F800000);
            largest[8 * j / BLOCK] = fmaxf(largest[8 * j / BLOCK], magnitude);
        }
#pragma unroll
    for (int part = 0; part < ACROSS; ++part) {
#pragma unroll
        for (int step = 1; step < 32; step *= 2)
            largest[part] = fmaxf(largest[part], __shfl_xor_sync(~0u, largest[part], step));
        if (lane == 0) maxima[warp * ACROSS + part] = largest[part];
    }
    asm volatile("bar.sync 1, %0;" ::"n"(GROUPS * 128) : "memory");
    float scale[ACROSS];
#pragma unroll
    for (int part = 0; part < ACROSS; ++part) {
        float most = 0.f;
#pragma unroll
        for (int w = 0; w < BLOCK / 16; ++w) most = fmaxf(most, maxima[(warp / (BLOCK / 16) * (BLOCK / 16) + w) * ACROSS + part]);
        scale[part] = block_scale<INT8>(most);
        int block_row = (tile_row + 16 * warp) / BLOCK, block_col = col / BLOCK + part;
        if (lane == 0 && warp % (BLOCK / 16) == 0 && block_row * BLOCK < work.m && block_col < work.out_scale_columns)
            out_scales[(i64)block_row * work.out_scale_columns + block_col] = scale[part];
    }
    asm volatile("bar.sync 1, %0;" ::"n"(GROUPS * 128) : "memory");  // all have read: the next tile may write
    bool is_whole = work.out_stride % 8 == 0 && ((u64)out & 7) == 0;
#pragma unroll
    for (int half = 0; half < 2; ++half) {
        int r = row + 8 * half + lane / 4;
        unsigned char* line = out + r * work.out_stride;
#pragma unroll
        for (int group = 0; group < 4; ++group) {
            u32 words[4];
#pragma unroll
            for (int j = 0; j < 4; j += 2) {
                // Four columns share a draw, two lanes hold them: one draws for j, the other for j + 1.
                float u[2][2] = {};
                if (STOCHASTIC) {
                    int mine = 4 * group + j + lane % 2;
                    i64 call = (col + 8 * mine) / 4 + lane % 4 / 2;
                    Words drawn = philox(seed, offset, (u64)(call * work.m + r));
                    u32 give0 = lane % 2 ? drawn.w[0] : drawn.w[2], give1 = lane % 2 ? drawn.w[1] : drawn.w[3];
                    u32 got0 = __shfl_xor_sync(~0u, give0, 1), got1 = __shfl_xor_sync(~0u, give1, 1);
                    u32 keep0 = lane % 2 ? drawn.w[2] : drawn.w[0], keep1 = lane % 2 ? drawn.w[3] : drawn.w[1];
                    u[0][0] = uniform(lane % 2 ? got0 : keep0), u[0][1] = uniform(lane % 2 ? got1 : keep1);
                    u[1][0] = uniform(lane % 2 ? keep0 : got0), u[1][1] = uniform(lane % 2 ? keep1 : got1);
                }
#pragma unroll
                for (int next = 0; next < 2; ++next) {
                    int at = 4 * (4 * group + j + next) + 2 * half;
                    float s = scale[8 * (4 * group + j + next) / BLOCK];
                    float low = s == s ? __fdiv_rn(total[at], s) : 0.f, high = s == s ? __fdiv_rn(total[at + 1], s) : 0.f;
                    words[j + next] = code<INT8, STOCHASTIC>(low, u[next][0]) | code<INT8, STOCHASTIC>(high, u[next][1]) << 8;
                }
            }
            turn(words, lane);
            int c = col + 32 * group + 8 * (lane % 4);
            if (r >= work.m) continue;
            u32 first = words[0] | words[1] << 16, second = words[2] | words[3] << 16;
            if (is_whole && c + 8 <= work.n) {
                *reinterpret_cast<uint2*>(line + c) = make_uint2(first, second);
            } else {
#pragma unroll
                for (int e = 0; e < 8; ++e)
                    if (c + e < work.n) line[c + e] = (unsigned char)((e < 4 ? first : second) >> (8 * (e % 4)));
            }
        }
    }
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

// GROUPS: warpgroups that multiply, 64 rows each. STAGES of shared memory.
template <int BLOCK, int GROUPS, int STAGES, bool INT8, int OUT, bool STOCHASTIC>
__global__ __launch_bounds__(128 * (GROUPS + 1), 1) void block_matmul(
    const __grid_constant__ TensorMap a_map, const __grid_constant__ TensorMap b_map, const float* __restrict__ a_scales,
    const float* __restrict__ b_scales, const float* __restrict__ bias, void* __restrict__ out,
    float* __restrict__ out_scales, const i64* __restrict__ seed, const i64* __restrict__ offset,
    const __grid_constant__ Work work) {
    typedef Factors<BLOCK, GROUPS> F;
    constexpr int ROWS = 64 * GROUPS, PER = F::PER, ACROSS = F::ACROSS;
    constexpr u32 A_BYTES = ROWS * STAGE, B_BYTES = COLUMNS * STAGE, STAGE_BYTES = A_BYTES + B_BYTES;
    extern __shared__ unsigned char memory[];
    u32 base = (shared_address(memory) + 1023) & ~1023u;
    __shared__ alignas(8) u64 barriers[2 * STAGES];
    __shared__ alignas(16) float factors[STAGES][F::COUNT];
    __shared__ float maxima[4 * GROUPS * ACROSS];
    u32 full = shared_address(barriers), empty = full + 8 * STAGES;
    int group = threadIdx.x / 128, warp = threadIdx.x / 32, lane = threadIdx.x % 32;
    if (threadIdx.x == 0) {
        for (int s = 0; s < STAGES; ++s) {
            barrier_init(full + 8 * s, 2);  // codes and factors
            barrier_init(empty + 8 * s, 4 * GROUPS);
        }
        asm volatile("fence.mbarrier_init.release.cluster;" ::: "memory");
    }
    __syncthreads();

    Tiles<ROWS> tiles(work.m, work.n);
    int stages = (work.k + STAGE - 1) / STAGE, inner_blocks = (work.k + BLOCK - 1) / BLOCK;

    if (group == GROUPS) {
        asm volatile("setmaxnreg.dec.sync.aligned.u32 %0;" ::"n"(GROUPS == 3 ? 32 : 40));
        // One warp fetches codes, three take turns at the factors: each has three stages' time for its loads.
        int feeder = warp - 4 * GROUPS, turn = 0;
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
                    constexpr int EACH = (F::COUNT + 31) / 32;
                    float mine[EACH];
#pragma unroll
                    for (int i = 0; i < EACH; ++i) {
                        int entry = lane + 32 * i;
                        if (entry < F::COUNT)
                            mine[i] = factor_of<BLOCK, GROUPS>(entry, a_scales, b_scales, work, row, col, s * PER, inner_blocks);
                    }
                    barrier_wait(empty + 8 * stage, parity);
#pragma unroll
                    for (int i = 0; i < EACH; ++i)
                        if (lane + 32 * i < F::COUNT) factors[stage][lane + 32 * i] = mine[i];
                    __syncwarp();
                    if (lane == 0) barrier_arrive(ready);
                }
                if (++turn == 3) turn = 0;
                if (++stage == STAGES) stage = 0, parity ^= 1;
            }
        }
    } else {
        asm volatile("setmaxnreg.inc.sync.aligned.u32 %0;" ::"n"(GROUPS == 3 ? 152 : 232));
        u32 stage = 0, parity = 0;
        for (int tile = blockIdx.x; tile < tiles.count; tile += gridDim.x) {
            int tile_row, tile_col;
            tiles.place(tile, tile_row, tile_col);
            float total[64];
#pragma unroll
            for (int i = 0; i < 64; ++i) total[i] = 0.f;
            for (int s = 0; s < stages; ++s) {
                typename Sums<INT8>::type sums[64];
                u32 here = base + stage * STAGE_BYTES;
                u64 a = descriptor(here + group * 64 * STAGE), b = descriptor(here + A_BYTES);
                const float* scaled_by = &factors[stage][(BLOCK < 64 ? warp * 16 / BLOCK : group) * PER * ACROSS];
                barrier_wait(full + 8 * stage, parity);
#pragma unroll
                for (int inner = 0; inner < PER; ++inner) {
                    wgmma_fence();
#pragma unroll
                    for (int part = 0; part < BLOCK / 32; ++part) {
                        int at = 2 * (inner * (BLOCK / 32) + part);  // 32 bytes, in units of 16
                        multiply(sums, a + at, b + at, part > 0);
                    }
                    wgmma_commit();
                    float factor[ACROSS];
#pragma unroll
                    for (int part = 0; part < ACROSS; ++part) factor[part] = scaled_by[inner * ACROSS + part];
                    wgmma_wait();
                    settle(sums);
                    // Each warp says so for itself: the others may not have come so far.
                    if (inner == PER - 1 && lane == 0) barrier_arrive(empty + 8 * stage);
#pragma unroll
                    for (int i = 0; i < 64; ++i)
                        total[i] = __fmaf_rn((float)sums[i], factor[8 * (i / 4) / BLOCK], total[i]);
                }
                if (++stage == STAGES) stage = 0, parity ^= 1;
            }
            int row = tile_row * ROWS + 16 * warp, col = tile_col * COLUMNS;
            if (bias != nullptr) {
#pragma unroll
                for (int j = 0; j < 16; ++j)
#pragma unroll
                    for (int e = 0; e < 2; ++e) {
                        int c = col + 8 * j + 2 * (lane % 4) + e;
                        float added = c < work.n ? __ldg(bias + c) : 0.f;
                        total[4 * j + e] += added, total[4 * j + 2 + e] += added;
                    }
            }
            if constexpr (OUT == CODES) {
                store_codes<BLOCK, GROUPS, INT8, STOCHASTIC>(
                    total, static_cast<unsigned char*>(out), out_scales, work, tile_row * ROWS, row, col, lane, warp,
                    STOCHASTIC ? (u64)*seed : 0, STOCHASTIC ? (u64)*offset : 0, maxima);
            } else {
                store_dense<OUT>(total, out, work.out_stride, row, col, work.m, work.n, lane);
            }
        }
    }
}
