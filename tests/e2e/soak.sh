#!/bin/bash
# make test-soak: SECONDS_OF_LOAD (600) of mixed load on a server (tests/serve_load.py): answers of fixed seeds stay equal,
# anonymous memory stays flat, no descriptor is left.
. "$(dirname "$0")/lib.sh"
talking_model
[ $FAILED -eq 0 ] || finish
if serve soak talk --slots 12 --queue 40 --page 16; then ok "it listens"; else not_ok "it listens" "$(cat soak.log soak.err)" && finish; fi
check "${SECONDS_OF_LOAD:=600} s of load" python3 "$HERE/../serve_load.py" "$URL" talk "$SECONDS_OF_LOAD" --pid $server --seed "${LOCKSTEP_TEST_SEED:-1}"
sed 's/^/    /' .out
kill -TERM $server
wait $server
equal "SIGTERM ends it well" $? 0
equal "it has nothing to complain about" "$(wc -c <soak.err)" 0
finish
