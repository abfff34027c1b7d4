/* The paper of all pictures. Private to src/lab/plot*.c. */
#ifndef LOCKSTEP_LAB_PLOT_H
#define LOCKSTEP_LAB_PLOT_H
#include "lockstep/lab/lab.h"

#define WIDTH   960
#define HEIGHT  480
#define LEFT    64
#define RIGHT   24
#define TOP     48
#define BOTTOM  44
#define COLUMNS (WIDTH - LEFT - RIGHT)

/* 1, 2 or 5 times a power of ten, about a `parts`-th of the range. */
double lk__plot_tick(double range, int parts);

#endif
