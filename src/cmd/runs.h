/* What the commands of runs share. Private to src/cmd/runs*.c. */
#ifndef LOCKSTEP_CMD_RUNS_H
#define LOCKSTEP_CMD_RUNS_H
#include "cmd.h"

#include "lockstep/lab/lab.h"

/* A record for people and scripts: numbers instead of exact hexadecimal strings. */
void runs_readable(json_t *record);
/* "2026-11-28 15:31" of a record's created_ms, or "-". */
const char *runs_date(const json_t *record, char out[32]);
/* "RUN@STEP" that it went on from, or NULL. */
const char *runs_parent(const json_t *record);
const char *runs_dataset(const json_t *record);

#endif
