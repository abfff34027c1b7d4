#!/bin/bash
# tests/run.sh UNIT_TEST...: runs the unit tests given (cmocka) and every end-to-end script of tests/e2e, a few at a time.
# What fails is shown in full. The last line is "N passed, N failed"; exits 1 when any failed.
# LOCKSTEP: the binary. JOBS: how many at a time; one more than there are processors, as tests of ranks and kills wait a lot. ONLY: a pattern of the names to run. TEST_SECONDS: limit of one.
set -u
cd "$(dirname "$0")/.."
LOGS=$(mktemp -d "${TMPDIR:-/tmp}/lockstep-tests.XXXXXX")
trap 'rm -rf "$LOGS"' EXIT
PASSED=0 FAILED=0 FAILURES=()
declare -A NAMES
export LOCKSTEP=$(realpath -m "${LOCKSTEP:-build/lockstep}")
# The same random cases every time; a fresh seed by hand: LOCKSTEP_TEST_SEED=$RANDOM make test
export LOCKSTEP_TEST_SEED=${LOCKSTEP_TEST_SEED:-1}

start() { # name, command...
    local name=$1 log
    shift
    case $name in *${ONLY:-}*) ;; *) return ;; esac
    log=$LOGS/$((++COUNT))
    while [ "$(jobs -pr | wc -l)" -ge "${JOBS:-$(($(nproc) + 1))}" ]; do collect; done
    NAMES[$log]=$name
    (
        began=$(date +%s%N)
        timeout -k 10 "${TEST_SECONDS:-600}" "$@" >"$log.out" 2>&1 </dev/null
        status=$?
        echo "$status $((($(date +%s%N) - began) / 100000000))" >"$log.tmp" && mv "$log.tmp" "$log.done"
    ) &
}
collect() { # reports what has ended since the last time
    local f log status tenths ok bad
    wait -n 2>/dev/null
    for f in "$LOGS"/*.done; do
        [ -e "$f" ] || continue
        log=${f%.done}
        read -r status tenths <"$f"
        ok=$(grep -cE '^(ok - |\[       OK \] )' "$log.out")
        bad=$(grep -cE '^(not ok - |\[  FAILED  \] [A-Za-z_][A-Za-z0-9_]*$)' "$log.out")
        [ "$bad" -gt 0 ] && grep -q '^\[  FAILED  \] [0-9]* test(s)' "$log.out" && bad=$(sed -n 's/^\[  FAILED  \] \([0-9]*\) test(s).*/\1/p' "$log.out" | awk '{ n += $1 } END { print n }')
        if [ "$status" -ne 0 ] && [ "$bad" -eq 0 ]; then bad=1; fi
        if [ "$status" -eq 0 ] && [ "$bad" -gt 0 ]; then status=1; fi
        PASSED=$((PASSED + ok)) FAILED=$((FAILED + bad))
        if [ "$status" -eq 0 ]; then printf 'ok      %-48s %4d passed  %d.%d s\n' "${NAMES[$log]}" "$ok" $((tenths / 10)) $((tenths % 10))
        else
            printf 'FAILED  %-48s %4d passed, %d failed  %d.%d s, exit status %d%s\n' "${NAMES[$log]}" "$ok" "$bad" $((tenths / 10)) \
                $((tenths % 10)) "$status" "$([ "$status" -eq 124 ] && echo " (out of time)")"
            sed 's/^/    | /' "$log.out"
            FAILURES+=("${NAMES[$log]}")
        fi
        rm -f "$f" "$log.out"
    done
}
COUNT=0
[ "${E2E:-yes}" = no ] || for t in tests/e2e/*_test.sh; do start "$t" bash "$t"; done # the long ones first
for t in "$@"; do start "${t#*/}" "$t"; done
while [ -n "$(jobs -pr)" ]; do collect; done
collect
[ $COUNT -gt 0 ] || echo "tests/run.sh: nothing ran: no test's name holds \"${ONLY:-}\"" >&2
[ ${#FAILURES[@]} -eq 0 ] || printf 'failed: %s\n' "${FAILURES[@]}"
echo "$PASSED passed, $FAILED failed"
[ $COUNT -gt 0 ] && [ $FAILED -eq 0 ]
