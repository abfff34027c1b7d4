#!/bin/bash
# make test-serve-sanitize: the server, built with sanitizers ($LOCKSTEP; $PLAIN is built without), under load for
# SECONDS_OF_LOAD (30): streams, clients that vanish, grammars, rubbish, SIGHUP, --follow while its run goes on, and SIGTERM
# under load. No report of a sanitizer.
. "$(dirname "$0")/lib.sh"
: "${SECONDS_OF_LOAD:=30}"
sanitized=$LOCKSTEP
reports=$WORK/report
export ASAN_OPTIONS=log_path=$reports:detect_leaks=1 UBSAN_OPTIONS=log_path=$reports:print_stacktrace=1 TSAN_OPTIONS=log_path=$reports:exitcode=66
LOCKSTEP=$PLAIN
talking_model
config f.ini run.name=f data.dataset=talk run.steps=100000 model.context=256 batch.context=32 batch.sequences=1 batch.grains=1 eval.every=0 \
    checkpoint.every=2000 eval.sequences=0
"$PLAIN" train f.ini >/dev/null 2>&1 &
trainer=$!
wait_step f 2000 $trainer || not_ok "a run that goes on"
quiet "$PLAIN" serve key alice --keys keys
key=$(sed -n 's/^key *//p' .out)
LOCKSTEP=$sanitized
[ $FAILED -eq 0 ] || finish
if serve one f --template chatml --follow --keys keys --slots 8 --page 16 --threads 2; then ok "it listens"; else not_ok "it listens" "$(cat one.log one.err)" && finish; fi
(while sleep 0.3; do kill -HUP $server || exit; done) 2>/dev/null &
storm=$!
check "load, SIGHUP, newer weights" python3 "$HERE/../serve_load.py" "$URL" f "$SECONDS_OF_LOAD" --pid $server --leaks --key "$key" --seed "${LOCKSTEP_TEST_SEED:-1}"
sed 's/^/    /' .out
{ kill -9 $trainer && wait $trainer; } 2>/dev/null
check "values of every type" python3 "$HERE/../serve_params.py" "$URL" f "$HERE/../../src/serve/api/params.c" "$key"
python3 "$HERE/../serve_load.py" "$URL" f "$SECONDS_OF_LOAD" --key "$key" --until-gone >until.txt 2>&1 &
load=$!
sleep 5
{ kill $storm && kill -TERM $server; } 2>/dev/null
wait $load
equal "answers are the same to the end" $? 0
sed 's/^/    /' until.txt
wait $server
equal "SIGTERM under load ends it well" $? 0
swaps=$(grep -c "step .* now, root" one.err)
if [ "$swaps" -gt 1 ]; then ok "weights were swapped"; else not_ok "weights were swapped" "$(tail -n 20 one.err)"; fi
equal "sanitizers report nothing" "$(cat "$reports"* 2>/dev/null | head -n 60; echo none)" none
finish
