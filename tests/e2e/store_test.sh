#!/bin/bash
# lockstep store show and move: what a store holds; a store in another place with equal roots, also after kills.
. "$(dirname "$0")/lib.sh"
seed
standard_data
config r.ini run.name=r
quiet "$LOCKSTEP" train r.ini
shown() { "$LOCKSTEP" store show --json "$@"; }

check "show" "$LOCKSTEP" store show
said "says where it is and on what" "^engine   LMDB, format 0"
said "counts rows by kind" " 8  .* steps$"
said "and blobs, by need" "all are needed"
said "names what there is" "^dataset  1: d$"
said "and runs" "^runs     1: r \(finished, step 8 of 8\)$"
said "and leases" "none is held"
equal "the same as JSON" "$(shown | grep -c '"engine": "LMDB"\|"prefix": "l/"\|"state": "finished"\|"leases": \[\]')" 4
root=$(shown | field rows_root)
equal "a root of all rows" ${#root} 64
fails "there is no store" 1 "there is no store at" -- "$LOCKSTEP" store show --store none

check "move" "$LOCKSTEP" store move "$LOCKSTEP_STORE" file:moved
said "says what became of it" "equal to the old one's"
equal "the rows are equal" "$(shown --store moved | field rows_root)" "$root"
equal "the run is too" "$("$LOCKSTEP" runs show r --json --store moved | grep root)" "$("$LOCKSTEP" runs show r --json | grep root)"
check "it is verified there" "$LOCKSTEP" verify r --store moved
check "and trained on" "$LOCKSTEP" train r.ini run.name=more --store moved
equal "the old one is as it was" "$(shown | field rows_root)" "$root"
fails "it is not moved over a store" 1 "there is a store at file:moved already" -- "$LOCKSTEP" store move "$LOCKSTEP_STORE" file:moved
fails "--blobs says too little" 2 "of which of the two" -- "$LOCKSTEP" store move "$LOCKSTEP_STORE" file:x --blobs y
check "blobs in another folder" "$LOCKSTEP" store move "$LOCKSTEP_STORE" apart --to-blobs large
check "are found there" "$LOCKSTEP" verify r --store apart --blobs large
fails "and must be named when it moves on" 1 "blobs" -- "$LOCKSTEP" store move apart back
check "it moves back" "$LOCKSTEP" store move apart back --from-blobs large
equal "to the same rows" "$(shown --store back | field rows_root)" "$root"
equal "LOCKSTEP_BLOBS is not for it" "$(LOCKSTEP_BLOBS=$WORK/none "$LOCKSTEP" store move back third --json 2>/dev/null | field rows_root)" "$root"

# a run in training keeps it; then it is killed at random points
config long.ini run.name=long run.steps=100000
"$LOCKSTEP" train long.ini >/dev/null 2>&1 &
pid=$!
wait_step long 2 $pid
fails "a run that is being trained is named" 1 "process $pid holds run/long" -- "$LOCKSTEP" store move "$LOCKSTEP_STORE" later
equal "show names it too" "$("$LOCKSTEP" store show | grep -c "run/long, held by process $pid")" 1
kill -9 $pid
wait $pid 2>/dev/null
for _ in 1 2 3 4 5 6; do
    "$LOCKSTEP" store move "$LOCKSTEP_STORE" later >/dev/null 2>&1 &
    pid=$!
    sleep 0.0$((RANDOM % 9))
    kill -9 $pid 2>/dev/null
    wait $pid 2>/dev/null
done
half="$("$LOCKSTEP" kv get format --store later 2>/dev/null)"
case $half in
moving*) fails "half a store is no store" 1 "is being moved from file:$LOCKSTEP_STORE" -- "$LOCKSTEP" runs list --store later ;;
esac
"$LOCKSTEP" store move "$LOCKSTEP_STORE" later >/dev/null 2>later.err || grep -q already later.err || not_ok "it goes on after SIGKILL" "$(cat later.err)"
equal "after SIGKILL the rows are equal" "$(shown --store later | field rows_root)" "$(shown | field rows_root)"
check "and the run is verified" "$LOCKSTEP" verify r --store later
finish
