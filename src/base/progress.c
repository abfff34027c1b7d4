#include "lockstep/base/progress.h"
#include <pthread.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

/* One lock for the live line and the warnings, so that a warning from another thread does not tear the line. */
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static struct lk_progress *live; /* the progress whose line is open on a terminal */
static atomic_bool quiet_now;

/* A rank's stderr is a pipe to its launcher, who may write to a terminal and then says so. */
static bool behind_terminal(const FILE *out) {
    const char *said = getenv("LOCKSTEP_PROGRESS");
    return out == stderr && said && strcmp(said, "bar") == 0;
}

void lk_progress_init(struct lk_progress *p, FILE *out) {
    bool terminal = isatty(fileno(out)) == 1 || behind_terminal(out);
    *p = (struct lk_progress){.out = out, .terminal = terminal, .interval_ns = terminal ? 100000000u : 5000000000u};
}

/* Cuts s to `width` characters, counting UTF-8 lead bytes. */
static void cut(char *s, int width) {
    for (; *s; s++) {
        bool lead = ((unsigned char)*s & 0xC0) != 0x80;
        if (lead && width-- == 0) {
            *s = 0;
            return;
        }
        if (*s == '\n' || *s == '\r') *s = ' ';
    }
}

static void clear_live(void) {
    if (!live) return;
    fputs("\r\033[K", live->out);
    fflush(live->out);
    live->line_open = false;
    live = NULL;
}

void lk_progress_show(struct lk_progress *p, bool force, const char *format, ...) {
    uint64_t now = lk_clock_ns();
    if (!force && p->last_ns && now - p->last_ns < p->interval_ns) return;
    p->last_ns = now;
    char text[1024];
    va_list args;
    va_start(args, format);
    vsnprintf(text, sizeof text, format, args);
    va_end(args);
    pthread_mutex_lock(&lock);
    if (p->terminal) {
        struct winsize size;
        int width = ioctl(fileno(p->out), TIOCGWINSZ, &size) == 0 && size.ws_col > 1 ? size.ws_col - 1 : 79;
        cut(text, width);
        fprintf(p->out, "\r%s\033[K", text);
        p->line_open = true;
        live = p;
    } else {
        fprintf(p->out, "%s\n", text);
    }
    fflush(p->out);
    pthread_mutex_unlock(&lock);
}

void lk_progress_line(struct lk_progress *p, const char *format, ...) {
    pthread_mutex_lock(&lock);
    if (live == p) clear_live();
    va_list args;
    va_start(args, format);
    vfprintf(p->out, format, args);
    va_end(args);
    fputc('\n', p->out);
    fflush(p->out);
    pthread_mutex_unlock(&lock);
}

void lk_progress_end(struct lk_progress *p) {
    pthread_mutex_lock(&lock);
    if (p->line_open) fputc('\n', p->out);
    fflush(p->out);
    p->line_open = false;
    if (live == p) live = NULL;
    pthread_mutex_unlock(&lock);
}

void lk_log_warn(const char *format, ...) {
    if (atomic_load(&quiet_now)) return;
    char text[1024];
    va_list args;
    va_start(args, format);
    vsnprintf(text, sizeof text, format, args);
    va_end(args);
    for (char *c = text; *c; c++) {
        if ((unsigned char)*c < 0x20) *c = ' ';
    }
    pthread_mutex_lock(&lock);
    clear_live();
    fprintf(stderr, "lockstep: warning: %s\n", text);
    pthread_mutex_unlock(&lock);
}

void lk_log_quiet(bool quiet) {
    atomic_store(&quiet_now, quiet);
}

char *lk_format_bytes(uint64_t bytes, char *out) {
    static const char *const units[] = {"bytes", "kB", "MB", "GB", "TB", "PB", "EB"};
    int unit = 0;
    double x = (double)bytes;
    /* 999.5 would print as 1000. */
    while (x >= (unit ? 999.5 : 1000) && unit < 6) x /= 1000, unit++;
    snprintf(out, 32, unit && x < 99.95 ? "%.1f %s" : "%.0f %s", x, bytes == 1 ? "byte" : units[unit]);
    return out;
}

char *lk_format_duration(double seconds, char *out) {
    if (!(seconds >= 0) || seconds > 1e10)
        snprintf(out, 32, "unknown");
    else if (seconds < 0.9995)
        snprintf(out, 32, "%.0f ms", seconds * 1000);
    else if (seconds < 9.95)
        snprintf(out, 32, "%.1f s", seconds);
    else {
        long long s = (long long)(seconds + 0.5);
        if (s < 60)
            snprintf(out, 32, "%lld s", s);
        else if (s < 3600)
            snprintf(out, 32, "%lld min %lld s", s / 60, s % 60);
        else if (s < 86400)
            snprintf(out, 32, "%lld h %lld min", s / 3600, s % 3600 / 60);
        else
            snprintf(out, 32, "%lld d %lld h", s / 86400, s % 86400 / 3600);
    }
    return out;
}
