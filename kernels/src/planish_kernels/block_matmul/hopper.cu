// Products of block-scaled 8-bit matrices on Hopper: a [m, k] times b [n, k] transposed, both row-major.
//
// One warp feeds shared memory through TMA, stages of 128 codes along k. Each other warpgroup multiplies 64 rows by 128
// columns of an inner block with wgmma, and adds the sums, times their scale, to float sums that stay in registers, while
// the wgmma of other warpgroups runs; two warpgroups have registers for the sums of two inner blocks, and run their own
// next wgmma meanwhile. INT8 sums are exact: they are converted, which costs an instruction beside each multiply-add.
// Blocks of 128 have two scales a stage, which each thread loads a stage ahead; of smaller blocks there are too many, and
// three more warps put their products beside the codes.
//
// Read after hopper_machine.cuh and hopper_output.cuh.

constexpr int WRITER_REGISTERS = 72;  // of each thread that writes codes; four warpgroups have 512 together
constexpr int GROUP = 8;       // tiles of rows that share columns in the L2

template <int ROWS> struct Tiles {
    int down, across, count;
    __device__ Tiles(int m, int n) : down((m + ROWS - 1) / ROWS), across((n + COLUMNS - 1) / COLUMNS), count(down * across) {}
    __device__ void place(int tile, int& row, int& col) const {
        int first = tile / (GROUP * across) * GROUP, within = tile % (GROUP * across);
        int height = min(down - first, GROUP);
        row = first + within % height, col = within / height;
    }
};

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
                    int along = 2 * (inner * (BLOCK / 32) + part);  // 32 bytes, in units of 16
                    multiply(sums, a + along, b + along, part > 0);
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
