/* One live line on a terminal, plain lines elsewhere; log lines that do not tear it. Everything goes to stderr. */
#ifndef LOCKSTEP_PROGRESS_H
#define LOCKSTEP_PROGRESS_H
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>

#ifdef __cplusplus
extern "C" {
#endif

struct lk_progress {
    FILE *out;
    bool terminal;
    uint64_t last_ns, interval_ns; /* a terminal is redrawn at most every 100 ms, a file gets a line every 5 s */
    bool line_open;
};
void lk_progress_init(struct lk_progress *, FILE *out);
/* Shows a line now if it is time (or force). printf-like; cut at the terminal's width. */
void lk_progress_show(struct lk_progress *, bool force, const char *format, ...) __attribute__((format(printf, 3, 4)));
/* Prints a line that stays, above the live line. */
void lk_progress_line(struct lk_progress *, const char *format, ...) __attribute__((format(printf, 2, 3)));
void lk_progress_end(struct lk_progress *); /* leaves the last state on its own line */

/* Clock. */
uint64_t lk_clock_ns(void);     /* monotonic */
int64_t lk_clock_wall_ms(void); /* Unix time in milliseconds */

/* Warnings from anywhere: one line on stderr, "lockstep: warning: ...". Silent after lk_log_quiet(true). */
void lk_log_warn(const char *format, ...) __attribute__((format(printf, 1, 2)));
void lk_log_quiet(bool quiet);

/* "1.2 GB", "345 kB" (powers of 1000) and "3 min 20 s" into out (at least 32 bytes); return out. */
char *lk_format_bytes(uint64_t bytes, char *out);
char *lk_format_duration(double seconds, char *out);

#ifdef __cplusplus
}
#endif
#endif
