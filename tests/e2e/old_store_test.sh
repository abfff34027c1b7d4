#!/bin/bash
# A store that release 0.1 made: every row and blob is read as it was, by every command, and it stays so when new things are written.
. "$(dirname "$0")/lib.sh"
GOLDEN=$HERE/../golden/store
xz -dc "$GOLDEN/store-0.1.tar.xz" | tar xf - || exit 1
export LOCKSTEP_STORE=$WORK/store-0.1

rows() { "$LOCKSTEP" kv export "$@"; }
check "its rows" sh -c "'$LOCKSTEP' kv export | cmp - '$GOLDEN/store-0.1.jsonl'"
check "kv check" "$LOCKSTEP" kv check
for command in "runs list" "runs show r" "runs log r" "dataset show d" "dataset verify d" "tokenizer show t" "model show m" "eval m --dataset d" "gc --dry-run"; do
    check "$command" "$LOCKSTEP" $command
done
check "verify: the run again, to the bit" "$LOCKSTEP" verify r
said "equal" '^equal: '
# Writing leaves what is there.
long=$(head -c 3000 /dev/zero | tr '\0' k)
check "a long key" "$LOCKSTEP" kv put "$long" value
check "a name" "$LOCKSTEP" model pin r --name second
check "they can be removed" "$LOCKSTEP" kv del "$long"
check "and the name" "$LOCKSTEP" model rm second
equal "the old rows are what they were" "$(rows | grep -v '"key_base64":"aC9tb2RlbC9zZWNvbmQ')" "$(cat "$GOLDEN/store-0.1.jsonl")"
mkdir -p "$LOCKSTEP_STORE/locks"
fails "a run that release 0.1 trains is known" 1 "run r is being trained by" -- flock "$LOCKSTEP_STORE/locks/r.lock" "$LOCKSTEP" runs rm r
check "gc" "$LOCKSTEP" gc --grace 0
check "verify after it" "$LOCKSTEP" verify r
check "compact" "$LOCKSTEP" kv compact
check "verify after that" "$LOCKSTEP" verify r
finish
