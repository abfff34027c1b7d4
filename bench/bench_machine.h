/* Whether a benchmark had the machine to itself: what other guests of the host took (steal) and other processes of ours, as
 * shares of the CPU time there was, from /proc/stat. Above MACHINE_LIMIT the figures conclude nothing: exit status 3.
 * Below a script that measures the same (common.py's Machine, BENCH_MACHINE is set) a program says nothing. */
#ifndef LOCKSTEP_BENCH_MACHINE_H
#define LOCKSTEP_BENCH_MACHINE_H
#include <stdio.h>
#include <stdlib.h>
#include <sys/resource.h>
#include <unistd.h>

#define MACHINE_LIMIT     0.05
#define MACHINE_DISTURBED 3

/* Seconds of all CPUs since the machine began: busy, steal, all; own: of this process and the children it has waited for.
 */
struct machine {
    double busy, steal, all, own;
    int failed;
};

static double machine_seconds(int who) {
    struct rusage u;
    getrusage(who, &u);
    return (double)(u.ru_utime.tv_sec + u.ru_stime.tv_sec) + 1e-6 * (double)(u.ru_utime.tv_usec + u.ru_stime.tv_usec);
}

static struct machine machine_now(void) {
    struct machine m = {.own = machine_seconds(RUSAGE_SELF) + machine_seconds(RUSAGE_CHILDREN)};
    double user, nice, system, idle, wait, irq, softirq, tick = (double)sysconf(_SC_CLK_TCK);
    FILE *f = fopen("/proc/stat", "r");
    m.failed = !f || fscanf(f, "cpu %lf %lf %lf %lf %lf %lf %lf %lf", &user, &nice, &system, &idle, &wait, &irq, &softirq,
                            &m.steal) != 8;
    if (f) fclose(f);
    if (m.failed) return m;
    m.busy = (user + nice + system + irq + softirq) / tick;
    m.steal /= tick;
    m.all = m.busy + m.steal + (idle + wait) / tick;
    return m;
}

/* Prints the line to stderr, so that tables stay tables; returns what main returns. With BENCH_ANYWAY=1 always 0. */
static int machine_verdict(const struct machine *since) {
    if (getenv("BENCH_MACHINE")) return 0;
    struct machine now = machine_now();
    double all = now.all - since->all;
    if (now.failed || since->failed || all < 0.5) { /* ticks are 10 ms: a shorter run says nothing */
        fprintf(stderr, "machine: %s, so nobody knows who else used it\n",
                now.failed || since->failed ? "/proc/stat cannot be read" : "the run is too short to tell");
        return 0;
    }
    double steal = (now.steal - since->steal) / all, others = (now.busy - since->busy - (now.own - since->own)) / all;
    if (others < 0) others = 0;
    fprintf(stderr, "machine: steal %.1f%%, others %.1f%%\n", 100 * steal, 100 * others);
    if (steal + others <= MACHINE_LIMIT) return 0;
    const char *anyway = getenv("BENCH_ANYWAY");
    if (anyway && *anyway == '1') {
        fprintf(stderr, "disturbed, and BENCH_ANYWAY=1\n");
        return 0;
    }
    fprintf(stderr, "disturbed: no conclusion (limit %.0f%%); run again on an idle machine, or with BENCH_ANYWAY=1\n",
            100 * MACHINE_LIMIT);
    return MACHINE_DISTURBED;
}

#endif
