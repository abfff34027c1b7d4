#!/bin/bash
# A store whose rows are in PostgreSQL: the suites of every engine, and commands with the roots of a store in a folder.
harness=$(cd "$(dirname "$0")/.." && pwd)/postgres.sh
source "$(dirname "$0")/lib.sh"
"$LOCKSTEP" kv stats --store postgresql://h --blobs none 2>&1 | grep -q "this build has no PostgreSQL" && echo "postgres: not in this build, skipped" && exit 0
chmod 755 "$WORK"
url=$("$harness" start "$WORK/pg")
case $? in
0) ;;
77) echo "postgres: no PostgreSQL here, skipped" && exit 0 ;;
*) exit 1 ;;
esac
trap '"$harness" stop "$WORK/pg"; cd / && rm -rf "$WORK"' EXIT

for suite in conformance hermitage ${LONG:+differential fault}; do # LONG=yes: all of them
    program=$(dirname "$LOCKSTEP")/src/store/kv/${suite}_test
    [ ! -x "$program" ] || check "PostgreSQL passes the $suite suite" env LOCKSTEP_TEST_KV="$url&schema=suite" "$program"
done
program=$(dirname "$LOCKSTEP")/src/store/pin_test
[ ! -x "$program" ] || check "pins have the same tokens there" env LOCKSTEP_TEST_KV="$url&schema=pins" "$program"

# One small run on each; what it is called must not matter.
run_on() {
    LOCKSTEP_STORE=$1 LOCKSTEP_BLOBS=$2
    export LOCKSTEP_STORE LOCKSTEP_BLOBS
    standard_data
    config r.ini run.name=r
    quiet "$LOCKSTEP" train r.ini
    "$LOCKSTEP" runs show r --json >"$3.run" 2>&1
    "$LOCKSTEP" verify r --json >"$3.verify" 2>&1
}
run_on "file:$WORK/folder" "" folder
run_on "$url&schema=runs" "$WORK/blobs" server
roots() { grep -o '"[a-z_]*root[a-z_]*": *"[0-9a-f]*"\|"identity": *"[0-9a-f]*"' "$1"; }
check "the run on PostgreSQL has roots" test -n "$(roots server.run)"
check "they are those of a folder" diff <(roots folder.run) <(roots server.run)
check "verify finds it right" "$LOCKSTEP" verify r
check "gc keeps it" "$LOCKSTEP" gc
check "verify finds it right after gc" "$LOCKSTEP" verify r
"$LOCKSTEP" generate r --prompt "the king" --tokens 20 >server.text 2>/dev/null
LOCKSTEP_STORE=file:$WORK/folder LOCKSTEP_BLOBS='' "$LOCKSTEP" generate r --prompt "the king" --tokens 20 >folder.text 2>/dev/null
check "it generates the same text" cmp server.text folder.text

# The whole store moves there and back; what comes between does not matter.
rows_root() { "$LOCKSTEP" store show --json "$@" | sed -n 's/.*"rows_root": "\(.*\)".*/\1/p'; }
check "a store moves from a folder to PostgreSQL" "$LOCKSTEP" store move "$WORK/folder" "$url&schema=moved" --to-blobs "$WORK/moved"
check "with equal rows" test "$(rows_root --store "$url&schema=moved" --blobs "$WORK/moved")" = "$(rows_root --store "$WORK/folder" --blobs "$WORK/folder/blobs")"
check "the run is verified there" "$LOCKSTEP" verify r --store "$url&schema=moved" --blobs "$WORK/moved"
check "from one schema to another" "$LOCKSTEP" store move "$url&schema=moved" "$url&schema=again" --from-blobs "$WORK/moved" --to-blobs "$WORK/again"
check "and back to a folder" "$LOCKSTEP" store move "$url&schema=again" "$WORK/back" --from-blobs "$WORK/again"
check "with equal rows again" test "$(rows_root --store "$WORK/back" --blobs "$WORK/back/blobs")" = "$(rows_root --store "$WORK/folder" --blobs "$WORK/folder/blobs")"
(for i in $(seq 1000 3000); do "$LOCKSTEP" kv put "w/$i" x --store "$url&schema=moved" --blobs "$WORK/moved" && echo "$i" >acknowledged; done) &
writer=$!
for _ in $(seq 100); do [ -s acknowledged ] && break || sleep 0.05; done
before=$(cat acknowledged)
check "while somebody writes" "$LOCKSTEP" store move "$url&schema=moved" "$WORK/beside" --from-blobs "$WORK/moved"
sleep 0.1
kill $writer
wait $writer 2>/dev/null
"$LOCKSTEP" kv scan --prefix w/ --keys --store "$WORK/beside" --blobs "$WORK/beside/blobs" >beside.rows
last=$(tail -n 1 beside.rows)
check "nothing that was written before is lost" test "${last#w/}" -ge "$before" -a "$(wc -l <beside.rows)" = $((${last#w/} - 999))
check "and more came along, or waited" test "$(cat acknowledged)" -gt "$before"
"$LOCKSTEP" store show --store "$WORK/beside" --blobs "$WORK/beside/blobs" >beside.show
check "show says that rows of no kind are there" grep -q "of no kind that this release knows" beside.show
"$LOCKSTEP" store show >show.out
check "show says which engine" grep -q "^engine   PostgreSQL" show.out

check "the benchmark runs on it" "$LOCKSTEP" kv bench --entries 2000 --reads 500 --commits 10 --writers 4 --rounds 1
check "and leaves no rows" test -z "$("$LOCKSTEP" kv scan --prefix bench/ --keys)"

# Going on after SIGKILL, with the server killed as well.
config long.ini run.name=long run.steps=400
"$LOCKSTEP" train long.ini >long.out 2>&1 &
pid=$!
for _ in $(seq 300); do "$LOCKSTEP" runs show long --json 2>/dev/null | grep -q '"step": *[1-9]' && break || sleep 0.1; done
"$LOCKSTEP" store move "$LOCKSTEP_STORE" "$WORK/no" --from-blobs "$LOCKSTEP_BLOBS" 2>held.err
check "a store whose run is being trained says who holds it" grep -q "process $pid on .* holds run/long" held.err
kill -9 $pid
wait $pid 2>/dev/null
"$harness" kill "$WORK/pg" && "$harness" start "$WORK/pg" >/dev/null
check "a killed run is resumed after the server was killed" "$LOCKSTEP" train --resume long
LOCKSTEP_STORE=file:$WORK/folder LOCKSTEP_BLOBS='' quiet "$LOCKSTEP" train long.ini
check "with the roots of a folder" diff <("$LOCKSTEP" runs show long --json | grep -o '"[a-z_]*root": *"[0-9a-f]*"') \
    <(LOCKSTEP_STORE=file:$WORK/folder LOCKSTEP_BLOBS='' "$LOCKSTEP" runs show long --json | grep -o '"[a-z_]*root": *"[0-9a-f]*"')

# Two ranks: the second one sees only the blobs.
config ranks.ini run.name=ranks
if "$LOCKSTEP" train ranks.ini --ranks 2 >ranks.out 2>&1; then
    check "two ranks have the roots of one process" diff <("$LOCKSTEP" runs show ranks --json | roots /dev/stdin | grep -v identity) \
        <(roots folder.run | grep -v identity)
fi

# A table: the same digest as in a folder, an import that is killed once.
seq 20000 | awk '{ printf "r%05d,%d\n", $1, $1 }' | sed '1i key,f:v' >rows.csv
folder() { LOCKSTEP_STORE=file:$WORK/folder LOCKSTEP_BLOBS='' "$LOCKSTEP" "$@"; }
check "a table in PostgreSQL" "$LOCKSTEP" table create t f
"$LOCKSTEP" table import t rows.csv --timestamp 1000 >/dev/null 2>&1 &
sleep 0.4
kill -9 $! 2>/dev/null
wait $! 2>/dev/null
check "an import goes on" "$LOCKSTEP" table import t rows.csv --timestamp 1000
check "a pin" "$LOCKSTEP" table pin create p t
check "a row is changed" "$LOCKSTEP" table set t r00001 f:v=x@1000
equal "the difference" "$("$LOCKSTEP" table diff t p 2>/dev/null | tr '\t' ' ')" '~ r00001 f:v@1000 1 x'
check "in a folder" folder table create t f
check "the same rows" folder table import t rows.csv --timestamp 1000
equal "have the same digest" "$("$LOCKSTEP" table digest t --pin p)" "$(folder table digest t)"
check "a copy from the server to a folder" "$LOCKSTEP" table copy t copied --pin p --to-store "$WORK/folder"
equal "has it too" "$(folder table digest copied)" "$(folder table digest t)"

# Passwords
secret="postgresql://postgres:hunter2@/postgres?host=$WORK/pg&schema=nothing"
"$LOCKSTEP" runs list --store "$secret" >secret.out 2>secret.err
check "a store that is not there is named without its password" test "$(grep -c 'u:\|hunter2' secret.err)" = 0 -a -s secret.err
"$LOCKSTEP" train long.ini run.name=hidden --store "${secret/nothing/runs}" >hidden.out 2>&1 &
pid=$!
for _ in $(seq 50); do [ -s hidden.out ] && break || sleep 0.05; done
tr '\0' ' ' <"/proc/$pid/cmdline" >hidden.words
kill $pid
wait $pid 2>/dev/null
check "ps shows no password" test "$(grep -c hunter2 hidden.words)" = 0 -a -s hidden.words
LOCKSTEP_BLOBS='' "$LOCKSTEP" runs list >none.out 2>none.err
check "without --blobs it says what to give" grep -q -- "--blobs DIR" none.err
