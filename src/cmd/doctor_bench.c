/* lockstep doctor --bench: the peaks of this machine, and where each kernel stands against them */
#include "cmd.h"

#include "lockstep/base/mem.h"
#include "lockstep/math/kernels.h"
#include "lockstep/math/measure.h"
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define FLOATS ((size_t)40 << 20) /* of the arrays that kernels work on: beyond the last cache */
#define ROWS   1024
#define WIDTH  768
#define HIDDEN 3072
#define VOCAB  50304
#define HEADS  12

struct bench {
    struct lk_math *math;
    struct lk_peaks peaks;
    float *a, *b, *c, *d; /* FLOATS each */
    uint32_t ids[ROWS];
    json_t *list; /* NULL: print */
};

/* --- One kernel ------------------------------------------------------------------------------------------ */

static void matmul(struct bench *b, size_t m, size_t n, size_t k, bool a_across, bool b_along, float *out) {
    struct lk_mm_part part = {.a = b->a,
                              .b = b->b,
                              .a_row = a_across ? 1 : k,
                              .a_col = a_across ? m : 1,
                              .b_row = b_along ? 1 : n,
                              .b_col = b_along ? k : 1,
                              .k = k,
                              .ends_group = true};
    lk_matmul(b->math, &(struct lk_mm){.m = m, .n = n, .parts = &part, .part_count = 1, .c = out, .ldc = n});
}
static void forward(struct bench *b) {
    matmul(b, ROWS, HIDDEN, WIDTH, false, true, b->c);
}
static void input_gradient(struct bench *b) {
    matmul(b, ROWS, WIDTH, HIDDEN, false, false, b->c);
}
static void weight_gradient(struct bench *b) {
    matmul(b, HIDDEN, WIDTH, ROWS, true, false, b->c);
}
static void decode(struct bench *b) {
    matmul(b, 1, VOCAB, WIDTH, false, true, b->c);
}
static struct lk_attention attention_of(struct bench *b) {
    size_t size = (size_t)ROWS * WIDTH;
    return (struct lk_attention){.sequences = 1,
                                 .queries = ROWS,
                                 .heads = HEADS,
                                 .kv_heads = HEADS,
                                 .head_dim = WIDTH / HEADS,
                                 .q = b->a,
                                 .k = b->a + size,
                                 .v = b->a + 2 * size,
                                 .ldq = WIDTH,
                                 .ldk = WIDTH,
                                 .ldv = WIDTH,
                                 .kv_rows = ROWS,
                                 .o = b->c,
                                 .ldo = WIDTH,
                                 .m = b->c + size,
                                 .r = b->c + size + HEADS * ROWS};
}
static void attention(struct bench *b) {
    struct lk_attention a = attention_of(b);
    lk_attention_forward(b->math, &a);
}
static void attention_backward(struct bench *b) {
    struct lk_attention a = attention_of(b);
    size_t size = (size_t)ROWS * WIDTH;
    lk_attention_backward(
        b->math, &a,
        &(struct lk_attention_gradient){
            .dout = b->b, .ld_dout = WIDTH, .q_scale = 0.125f, .dq = b->d, .dk = b->d + size, .dv = b->d + 2 * size});
}
static void norm(struct bench *b) {
    lk_norm_forward(b->math, &(struct lk_norm){.rows = FLOATS / WIDTH,
                                               .n = WIDTH,
                                               .x = b->a,
                                               .gain = b->b,
                                               .bias = b->b + WIDTH,
                                               .epsilon = 1e-5f,
                                               .y = b->c,
                                               .mean = b->d,
                                               .rstd = b->d + FLOATS / WIDTH});
}
static void norm_backward(struct bench *b) {
    lk_norm_backward(b->math, &(struct lk_norm_gradient){.rows = FLOATS / WIDTH,
                                                         .n = WIDTH,
                                                         .layer = true,
                                                         .x = b->a,
                                                         .gain = b->b,
                                                         .mean = b->d,
                                                         .rstd = b->d + FLOATS / WIDTH,
                                                         .dy = b->c,
                                                         .dx = b->c});
}
static void gelu(struct bench *b) {
    lk_gelu_forward(b->math, FLOATS, b->a, b->c);
}
static void gelu_backward(struct bench *b) {
    lk_gelu_backward(b->math, FLOATS, b->a, b->c, b->c);
}
static void loss(struct bench *b) {
    lk_cross_entropy(b->math, &(struct lk_cross_entropy){.rows = FLOATS / VOCAB,
                                                         .vocab = VOCAB,
                                                         .logits = b->c,
                                                         .ld = VOCAB,
                                                         .targets = b->ids,
                                                         .scale = 1e-3f,
                                                         .gradient = true,
                                                         .loss = b->d});
}
static void column_sum(struct bench *b) {
    struct lk_row_part part = {.rows = FLOATS / WIDTH, .ends_group = true};
    lk_column_sum(b->math, &(struct lk_column_sum){
                               .n = WIDTH, .y = b->a, .ldy = WIDTH, .parts = &part, .part_count = 1, .out = b->c});
}
static void sums(struct bench *b) {
    lk_add(b->math, FLOATS, b->a, b->b, b->c);
}
static void optimizer(struct bench *b) {
    struct lk_adamw step = {.beta1 = 0.9f,
                            .one_minus_beta1 = 0.1f,
                            .beta2 = 0.95f,
                            .one_minus_beta2 = 0.05f,
                            .step = -1e-3f,
                            .v_scale = 1,
                            .epsilon = 1e-8f,
                            .keep = 1,
                            .clip = 1};
    lk_adamw_step(b->math, &step, FLOATS, b->c, b->a, b->b, b->d);
}

/* The traffic of a kernel: which arrays it reads and writes, by their letters. "": the operations alone are its floor, or
 * its bytes at the speed of reading. */
static const struct row {
    const char *shape;
    enum lk_kernel kernel;
    void (*run)(struct bench *);
    const char *reads, *writes;
} rows[] = {
    {"1024 x 3072, k 768", LK_KERNEL_MATMUL_FORWARD, forward, "", ""},
    {"1 x 50304, k 768 (decode)", LK_KERNEL_MATMUL_FORWARD, decode, "", ""},
    {"1024 x 768, k 3072", LK_KERNEL_MATMUL_INPUT, input_gradient, "", ""},
    {"3072 x 768, k 1024", LK_KERNEL_MATMUL_WEIGHT, weight_gradient, "", ""},
    {"1024, 12 heads of 64", LK_KERNEL_ATTENTION, attention, "", ""},
    {"1024, 12 heads of 64", LK_KERNEL_ATTENTION_BACKWARD, attention_backward, "", ""},
    {"layer norm, rows of 768", LK_KERNEL_NORM, norm, "a", "c"},
    {"layer norm, rows of 768", LK_KERNEL_NORM_BACKWARD, norm_backward, "ca", "c"},
    {"GELU", LK_KERNEL_ACTIVATION, gelu, "a", "c"},
    {"GELU", LK_KERNEL_ACTIVATION_BACKWARD, gelu_backward, "ca", "c"},
    {"rows of 50304", LK_KERNEL_LOSS, loss, "c", "c"},
    {"rows of 768", LK_KERNEL_COLUMN_SUM, column_sum, "a", ""},
    {"add", LK_KERNEL_SUMS, sums, "ab", "c"},
    {"AdamW", LK_KERNEL_OPTIMIZER, optimizer, "cbda", "cbd"},
};

static float *array_of(const struct bench *b, char letter) {
    return letter == 'a' ? b->a : letter == 'b' ? b->b : letter == 'c' ? b->c : b->d;
}
/* Seconds that the same arrays take when nothing is computed, by the better of two kinds of stores. */
static double traffic_seconds(struct bench *b, const struct row *row, bool past_caches) {
    struct lk_stream s = {
        .n = FLOATS, .reads = strlen(row->reads), .writes = strlen(row->writes), .past_caches = past_caches};
    for (size_t i = 0; i < s.reads; i++) s.read[i] = array_of(b, row->reads[i]);
    for (size_t i = 0; i < s.writes; i++) s.write[i] = array_of(b, row->writes[i]);
    uint64_t began = lk_clock_ns();
    lk_math_stream(b->math, &s);
    return (double)(lk_clock_ns() - began) * 1e-9;
}

/* The best of several calls: other work on the machine only ever slows one down. */
static int run_row(struct bench *b, const struct row *row, struct lk_err *err) {
    struct lk_kernel_time best = {0};
    double memory = 1e9;
    int code;
    for (int i = 0; i < 6; i++) {
        if ((code = lk_math_profile(b->math, err))) return code;
        row->run(b);
        const struct lk_kernel_time *t = &lk_math_profiled(b->math)[row->kernel];
        if (i == 0 || t->ns < best.ns) best = *t;
        for (int past = 0; past < 2 && *row->reads; past++) {
            double moved = traffic_seconds(b, row, past);
            if (moved < memory) memory = moved;
        }
    }
    if (!*row->reads) memory = best.bytes / b->peaks.read_bytes_all;
    double seconds = (double)best.ns * 1e-9, compute = best.operations / b->peaks.fma_flops_all,
           floor = compute > memory ? compute : memory;
    if (b->list)
        return json_array_append_new(b->list,
                                     json_pack("{s:s, s:s, s:f, s:f, s:f, s:f}", "kernel", lk_kernel_name(row->kernel),
                                               "shape", row->shape, "seconds", seconds, "flops", best.operations / seconds,
                                               "bytes_a_second", best.bytes / seconds, "roofline", floor / seconds))
                   ? lk_fail(err, LK_ENOMEM, "no memory for the result")
                   : LK_OK;
    printf("%-24s %-26s %9.3f %9.1f %8.1f %8.0f%%\n", lk_kernel_name(row->kernel), row->shape, 1e3 * seconds,
           best.operations / seconds / 1e9, best.bytes / seconds / 1e9, 100 * floor / seconds);
    return LK_OK;
}

/* --- The machine ----------------------------------------------------------------------------------------- */

/* Seconds of making one small write durable where the store is, or will be; 0: not to be found out. The median of several.
 */
static int ascending(const void *a, const void *b) {
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}
static double sync_seconds(const struct cmd_context *c) {
    char path[4096] = "";
    double seconds[9];
    const char *url = c->store_url;
    if (strncmp(url, "file:", 5) == 0) url += 5;
    snprintf(path, sizeof path, "%s/sync-XXXXXX", access(url, W_OK) == 0 ? url : ".");
    int fd = mkstemp(path);
    if (fd < 0) return 0;
    unlink(path);
    for (int i = 0; i < 9; i++) {
        uint64_t began = lk_clock_ns();
        if (pwrite(fd, path, sizeof path, i * (off_t)sizeof path) != (ssize_t)sizeof path || fdatasync(fd)) {
            close(fd);
            return 0;
        }
        seconds[i] = (double)(lk_clock_ns() - began) * 1e-9;
    }
    close(fd);
    qsort(seconds, 9, sizeof *seconds, ascending);
    return seconds[4];
}

static int measure_isas(struct cmd_context *c, json_t *list, struct lk_err *err) {
    const char *names[8];
    int code = LK_OK;
    for (int i = 0, n = lk_math_isas(names); i < n && !code; i++) {
        struct lk_math *math;
        struct lk_peaks p;
        if ((code = lk_math_open(c->pool, names[i], &math, err))) break;
        lk_math_measure(math, 0.2, &p);
        lk_math_close(math);
        if (list)
            json_object_set_new(list, names[i], json_pack("{s:f, s:f}", "one", p.fma_flops_one, "all", p.fma_flops_all));
        else
            printf("fma %-8s %9.1f GFLOP/s one thread, %.1f all\n", names[i], p.fma_flops_one / 1e9, p.fma_flops_all / 1e9);
    }
    return code;
}

static int take_arrays(struct bench *b, struct lk_arena *memory, struct lk_err *err) {
    if (lk_arena_init(memory, 4 * FLOATS * sizeof(float)))
        return lk_fail(err, LK_ENOMEM, "no memory to measure kernels: %zu MB are needed", 4 * FLOATS * sizeof(float) >> 20);
    float **all[] = {&b->a, &b->b, &b->c, &b->d};
    for (int i = 0; i < 4; i++) {
        *all[i] = lk_arena_take(memory, FLOATS * sizeof(float));
        for (size_t k = 0; k < FLOATS; k++) (*all[i])[k] = (float)((k * 7919 + (size_t)i * 31) % 2048) / 2048 + 0.01f;
    }
    for (uint32_t i = 0; i < ROWS; i++) b->ids[i] = i * 37 % VOCAB;
    return lk_math_reserve(b->math, lk_attention_scratch_bytes(ROWS, WIDTH / HEADS, true), err);
}

int cmd_doctor_bench(struct cmd_context *c) {
    struct lk_err err = {0};
    struct lk_arena memory = {0};
    struct bench b = {.math = c->math, .list = c->json ? json_array() : NULL};
    json_t *isas = c->json ? json_object() : NULL;
    int code = take_arrays(&b, &memory, &err);
    double sync = sync_seconds(c);
    if (!code) lk_math_measure(c->math, 0.5, &b.peaks);
    if (!code) code = measure_isas(c, isas, &err);
    if (!code && !b.list) {
        printf("read         %9.1f GB/s one thread, %.1f all\ncopy         %9.1f GB/s all\n", b.peaks.read_bytes_one / 1e9,
               b.peaks.read_bytes_all / 1e9, b.peaks.copy_bytes_all / 1e9);
        if (sync > 0) printf("sync         %9.3f ms (4 KiB made durable beside the store)\n", 1e3 * sync);
        printf("\n%-24s %-26s %9s %9s %8s %9s\n", "kernel", "shape", "ms", "GFLOP/s", "GB/s", "roofline");
    }
    for (size_t i = 0; i < sizeof rows / sizeof *rows && !code; i++) code = run_row(&b, &rows[i], &err);
    lk_arena_release(&memory);
    if (code) {
        json_decref(b.list);
        json_decref(isas);
        return cmd_fail(&err);
    }
    if (b.list)
        return cmd_print_json(json_pack("{s:o, s:f, s:f, s:f, s:f, s:o}", "fma_flops", isas, "read_bytes_one",
                                        b.peaks.read_bytes_one, "read_bytes_all", b.peaks.read_bytes_all, "copy_bytes_all",
                                        b.peaks.copy_bytes_all, "sync_seconds", sync, "kernels", b.list));
    printf(
        "\nroofline: the least time that the operations allow at these peaks, or that the same arrays take to be read and\n"
        "written with nothing computed, over the time taken; what lies in caches can exceed 100%%\n");
    return CMD_OK;
}
