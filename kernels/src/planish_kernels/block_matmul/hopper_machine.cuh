// What the machine does for products on Hopper, and what all parts of their kernel share. Read before the others.

typedef unsigned int u32;
typedef unsigned long long u64;
typedef long long i64;

struct alignas(64) TensorMap { unsigned char bytes[128]; };

constexpr int STAGE = 128;     // codes along k in a stage: rows of 128 bytes, as wide as the swizzle
constexpr int COLUMNS = 128;   // of a tile

enum Out { FLOAT32, BFLOAT16, FLOAT16, CODES };

struct Work {  // by value: what a launch is given
    i64 a_scale_rows, a_scale_cols, b_scale_rows, b_scale_cols;  // strides: of blocks along m or n, and along k
    i64 out_stride;
    int m, n, k, out_scale_columns;
};

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
