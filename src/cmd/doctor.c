/* lockstep doctor */
#include "cmd.h"

#include "lockstep/base/hash.h"
#include "lockstep/math/fingerprint.h"
#include "lockstep/math/measure.h"
#include <string.h>

void cmd_cpu_name(char *out, size_t size) {
    char line[256];
    snprintf(out, size, "unknown");
    FILE *f = fopen("/proc/cpuinfo", "r");
    while (f && fgets(line, sizeof line, f)) {
        char *colon = strchr(line, ':');
        if (strncmp(line, "model name", 10) || !colon) continue;
        colon[strcspn(colon, "\n")] = 0;
        snprintf(out, size, "%s", colon + 2);
        break;
    }
    if (f) fclose(f);
}

static json_t *isas_json(void) {
    const char *names[8];
    json_t *all = json_array();
    for (int i = 0, n = lk_math_isas(names); i < n; i++) json_array_append_new(all, json_string(names[i]));
    return all;
}

/* Of floats, and of what computes in fewer bits. */
static int fingerprints(struct lk_math *m, struct lk_root out[2], struct lk_err *err) {
    int code = lk_math_fingerprint(m, &out[0], err);
    return code ? code : lk_math_fingerprint_blocks(m, &out[1], err);
}
/* Every instruction set of this machine must give the same ones. */
static int self_test(struct cmd_context *c, struct lk_root out[2], struct lk_err *err) {
    const char *names[8];
    int code = fingerprints(c->math, out, err);
    for (int i = 0, n = lk_math_isas(names); i < n && !code; i++) {
        struct lk_math *other;
        struct lk_root root[2];
        if ((code = lk_math_open(c->pool, names[i], &other, err))) break;
        code = fingerprints(other, root, err);
        lk_math_close(other);
        if (!code && !(lk_root_equal(&root[0], &out[0]) && lk_root_equal(&root[1], &out[1])))
            code = lk_fail(
                err, LK_EDIVERGED,
                "self-test FAILED: the %s kernels give other bits than %s: this machine or this build must not be trusted",
                names[i], lk_math_isa(c->math));
    }
    return code;
}

/* "L1 32 KiB in 8 ways, L2 ...": what blocks are chosen by, and who says so. */
static void caches_text(const struct lk_caches *c, char *out, size_t size) {
    static const char *const from[] = {
        [LK_CACHES_ASSUMED] = "assumed, nothing says",
        [LK_CACHES_SYSTEM] = "the system says",
        [LK_CACHES_CPUID] = "the processor says",
        [LK_CACHES_GIVEN] = "LOCKSTEP_CACHES says",
    };
    snprintf(out, size, "L1 %zu KiB in %zu ways, L2 %zu KiB in %zu, %s", c->l1.bytes >> 10, c->l1.ways, c->l2.bytes >> 10,
             c->l2.ways, from[c->from]);
}

static bool bench;

static int doctor(struct cmd_context *c) {
    struct lk_err err = {0};
    struct lk_peaks p;
    struct lk_root root[2];
    char cpu[200], hex[LK_ROOT_HEX], narrow[LK_ROOT_HEX], memory[32], caches[128], blocks[128], attention[128];
    const char *names[8];
    int code = cmd_open_math(c);
    if (code) return code;
    if (bench) return cmd_doctor_bench(c);
    cmd_cpu_name(cpu, sizeof cpu);
    lk_math_measure(c->math, 0.3, &p);
    if (self_test(c, root, &err)) return cmd_fail(&err);
    lk_root_hex(&root[0], hex);
    lk_root_hex(&root[1], narrow);
    int threads = lk_pool_threads(c->pool);
    const struct lk_caches *cache = lk_math_caches(c->math);
    caches_text(cache, caches, sizeof caches);
    lk_math_blocks_text(c->math, blocks, sizeof blocks);
    lk_math_attention_text(c->math, attention, sizeof attention);
    if (c->json)
        return cmd_print_json(json_pack(
            "{s:s, s:s, s:s, s:o, s:{s:I, s:I, s:I, s:I}, s:s, s:s, s:i, s:I, s:f, s:f, s:f, s:f, s:s, s:s, s:b}",
            "version", lk_version(), "cpu", cpu, "isa", lk_math_isa(c->math), "isas", isas_json(), "caches", "l1_bytes",
            (json_int_t)cache->l1.bytes, "l1_ways", (json_int_t)cache->l1.ways, "l2_bytes", (json_int_t)cache->l2.bytes,
            "l2_ways", (json_int_t)cache->l2.ways, "blocks", blocks, "attention", attention, "threads", threads,
            "memory_bytes", (json_int_t)lk_memory_available_bytes(), "fma_flops_one", p.fma_flops_one, "fma_flops_all",
            p.fma_flops_all, "read_bytes_one", p.read_bytes_one, "read_bytes_all", p.read_bytes_all, "fingerprint", hex,
            "fingerprint_blocks", narrow, "healthy", 1));
    printf("lockstep     %s\ncpu          %s\nthreads      %d\nkernels      %s (here:", lk_version(), cpu, threads,
           lk_math_isa(c->math));
    for (int i = 0, n = lk_math_isas(names); i < n; i++) printf(" %s", names[i]);
    printf(")\ncaches       %s\nblocks       %s\nattention    %s\n", caches, blocks, attention);
    printf("fma peak     %.1f GFLOP/s one thread, %.1f all\n", p.fma_flops_one / 1e9, p.fma_flops_all / 1e9);
    printf("read         %.1f GB/s one thread, %.1f all\nmemory       %s free\n", p.read_bytes_one / 1e9,
           p.read_bytes_all / 1e9, lk_format_bytes(lk_memory_available_bytes(), memory));
    printf("self-test    equal bits from all kernels\nfingerprint  %s\nin q8, q4    %s\n", hex, narrow);
    return CMD_OK;
}
const struct cmd cmd_doctor = {
    "doctor",
    "",
    0,
    0,
    "Look at this machine: CPU, kernels, peaks, memory, self-test.",
    (const struct cmd_option[]){CMD_FLAG("--bench", &bench, "measure the peaks and each kernel against them"), CMD_END},
    "The fingerprints hash the outputs of every kernel, of floats and in fewer bits; they are equal on all healthy "
    "machines.",
    doctor};
