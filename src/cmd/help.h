/* What lockstep help writes, beside the text of -h. */
#ifndef LOCKSTEP_CMD_HELP_H
#define LOCKSTEP_CMD_HELP_H
#include "cmd.h"

/* lockstep.1 and a page a command, lockstep-NOUN-VERB.1, in a folder that is made if absent. */
int cmd_write_manual(const char *folder);
/* Completion, on standard output. */
int cmd_write_bash(void);
int cmd_write_zsh(void);

#endif
