#!/bin/bash
# Benchmarks say whether the machine was theirs, and conclude nothing where it was not.
. "$(dirname "$0")/lib.sh"
BENCH=$(cd "$HERE/../../bench" && pwd)
unset BENCH_MACHINE BENCH_ANYWAY

# verdict NAME STATUS STEAL OTHERS TEXT: shares of /proc/stat's seconds, of 100 in all
verdict() {
    PYTHONPATH=$BENCH python3 - "$2" "$3" "$4" "$5" >out 2>&1 <<'P' && ok "$1" || not_ok "$1" "$(cat out)"
import sys
from common import Machine
status, steal, others, text = int(sys.argv[1]), float(sys.argv[2]), float(sys.argv[3]), sys.argv[4]
own = 40
shares = Machine.shares((7, 1, 1000, 5), (7 + own + others, 1 + steal, 1100, 5 + own))
lines, found = Machine.verdict(shares)
assert found == status and text in lines, (found, lines)
P
}
verdict "an idle machine" 0 0.3 1.2 "machine: steal 0.3%, others 1.2%"
verdict "5% is allowed" 0 2 3 "machine: steal 2.0%, others 3.0%"
verdict "steal disturbs" 3 5.5 0 "disturbed: no conclusion"
verdict "other processes disturb" 3 0 20 "others 20.0%"
verdict "both together disturb" 3 3 3 "disturbed: no conclusion"
BENCH_ANYWAY=1 verdict "BENCH_ANYWAY=1 goes on" 0 0 20 "disturbed, and BENCH_ANYWAY=1"

# A program that is not below the benchmark: as many as there are processors.
hogs=
for ((i = 0; i < $(nproc); i++)); do
    while :; do :; done &
    hogs="$hogs $!"
done
python3 "$BENCH/common.py" sleep 1.5 2>err
status=$?
BENCH_ANYWAY=1 python3 "$BENCH/common.py" sleep 1.5 2>err2
anyway=$?
python3 "$BENCH/common.py" env python3 "$BENCH/common.py" sleep 1.5 2>err3
kill $hogs
# A quota of few among many processors keeps them below the limit: then the status must say so too.
expected=$(awk '/^machine:/ { steal = $3 + 0; others = $5 + 0; print ((others < 1) ? "nobody" : (steal + others > 5) ? 3 : 0) }' err)
[ "$status" = "$expected" ] && { [ "$status" = 0 ] || grep -q "disturbed: no conclusion" err; } && ok "a busy machine: status 3" || not_ok "a busy machine: status 3" "$status: $(cat err)"
[ "$anyway" = 0 ] && grep -q "^machine: steal" err2 && ok "a busy machine, anyway" || not_ok "a busy machine, anyway" "$anyway: $(cat err2)"
[ "$(grep -c "^machine:" err3)" = 1 ] && ok "one line for a benchmark below another" || not_ok "one line for a benchmark below another" "$(cat err3)"
python3 "$BENCH/common.py" sh -c 'exit 7' 2>err
[ $? = 7 ] && ! grep -q machine err && ok "a benchmark that fails keeps its status" || not_ok "a benchmark that fails keeps its status" "$(cat err)"
finish
