/* What the machine can do, and where the time goes. */
#ifndef LOCKSTEP_MATH_MEASURE_H
#define LOCKSTEP_MATH_MEASURE_H
#include "lockstep/base/caches.h"
#include "lockstep/math/math.h"
#include <stdbool.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

/* --- Peaks ----------------------------------------------------------------------------------------------- */
/* The traffic of a kernel without its arithmetic: elements 0 .. n - 1 of all arrays in `read` are read; write[i] becomes
 * what read[i mod reads] holds, so that an array which is updated stays as it is where it stands at the same place in both.
 * past_caches: by stores that leave the caches alone, for which all of `write` must lie at multiples of 64 bytes. Takes as
 * long as any kernel of that traffic must at least. reads, writes: 1 0, 1 1, 2 0, 2 1, 2 2, 3 1, 3 2 or 4 3. */
#define LK_STREAM_READS  4
#define LK_STREAM_WRITES 3
struct lk_stream {
    size_t n, reads, writes;
    const float *read[LK_STREAM_READS];
    float *write[LK_STREAM_WRITES];
    bool past_caches;
};
void lk_math_stream(struct lk_math *, const struct lk_stream *);

struct lk_peaks {
    double fma_flops_one, fma_flops_all; /* per second, one thread and the pool, by the chosen ISA */
    double read_bytes_one, read_bytes_all;
    double copy_bytes_all; /* bytes copied; each is read once and written once */
};
void lk_math_measure(struct lk_math *, double seconds, struct lk_peaks *out);

/* --- Blocks ---------------------------------------------------------------------------------------------- */
/* The caches that blocks are chosen by (see lk_caches_here), and how these kernels use them for matrix products and for
 * attention, in a line each. No bit depends on any. */
const struct lk_caches *lk_math_caches(const struct lk_math *);
void lk_math_blocks_text(const struct lk_math *, char *out, size_t size);
void lk_math_attention_text(const struct lk_math *, char *out, size_t size);

/* --- Profile: where the time goes, by kernel ------------------------------------------------------------- */
#define LK_KERNEL_TABLE(X)                                                                                                 \
    X(MATMUL_FORWARD, "matmul forward")                                                                                    \
    X(MATMUL_INPUT, "matmul input gradient")                                                                               \
    X(MATMUL_WEIGHT, "matmul weight gradient")                                                                             \
    X(ATTENTION, "attention forward")                                                                                      \
    X(ATTENTION_BACKWARD, "attention backward")                                                                            \
    X(NORM, "norm forward")                                                                                                \
    X(NORM_BACKWARD, "norm backward")                                                                                      \
    X(ACTIVATION, "activation forward")                                                                                    \
    X(ACTIVATION_BACKWARD, "activation backward")                                                                          \
    X(ROTARY, "rotary and scaling")                                                                                        \
    X(LOSS, "softmax and loss")                                                                                            \
    X(EMBEDDING, "embedding")                                                                                              \
    X(COLUMN_SUM, "bias and gain gradients")                                                                               \
    X(SUMS, "sums of gradients, norm")                                                                                     \
    X(OPTIMIZER, "optimizer")
enum lk_kernel {
#define X(name, text) LK_KERNEL_##name,
    LK_KERNEL_TABLE(X)
#undef X
        LK_KERNELS
};
struct lk_kernel_time {
    uint64_t calls, ns, idle_ns; /* idle: of all threads together, waiting for the others inside the call */
    double operations, bytes;    /* of products and attention; what must at least be moved to and from memory */
};
/* Begins to measure (from zero); the cost is two clock readings a call, and nothing while it is off. */
int lk_math_profile(struct lk_math *, struct lk_err *);
/* What happens meanwhile is not measured. */
void lk_math_profile_pause(struct lk_math *, bool pause);
/* (LK_KERNELS), or NULL when it is off. */
const struct lk_kernel_time *lk_math_profiled(const struct lk_math *);
const char *lk_kernel_name(enum lk_kernel);

#ifdef __cplusplus
}
#endif
#endif
