/* The Makefile's VERSION. */
#include "lockstep/base/version.h"

const char *lk_version(void) {
    return LK_VERSION;
}
