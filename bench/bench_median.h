/* The median of measured times. */
#ifndef LOCKSTEP_BENCH_MEDIAN_H
#define LOCKSTEP_BENCH_MEDIAN_H
#include <stddef.h>
#include <stdlib.h>

static int by_value(const void *a, const void *b) {
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}
/* Sorts x; 0 of none. */
static double median(double *x, size_t n) {
    if (n) qsort(x, n, sizeof *x, by_value);
    return n ? x[n / 2] : 0;
}

#endif
