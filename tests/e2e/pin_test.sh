#!/bin/bash
# Pins from the shell, and rows of a user's own beside Lockstep's.
source "$(dirname "$0")/lib.sh"
standard_data
json_value() { python3 -c 'import json,sys; print(json.load(sys.stdin)[sys.argv[1]])' "$1"; }
blobs() { find store/blobs -path store/blobs/tmp -prune -o -type f -print | sort; }

check "pin create" "$LOCKSTEP" pin create before --for 30d --holder "the test"
said "it says what it holds" "pin before holds [0-9a-f]{64}, until 20"
token=$("$LOCKSTEP" pin show before --json | json_value token)
taken=$("$LOCKSTEP" pin show before --json | json_value at_ms)
blobs >all
fails "it is held" 1 "the pin before is held by the test" -- "$LOCKSTEP" pin create before
fails "a time without a unit" 2 "is no time" -- "$LOCKSTEP" pin create other --for 10
name=$("$LOCKSTEP" dataset list --json | python3 -c 'import json,sys; print(json.load(sys.stdin)[0]["name"])')
quiet "$LOCKSTEP" kv del "n/dataset/$name" --force
quiet "$LOCKSTEP" gc --grace 0
equal "what a pin holds stays when its name is gone" "$(blobs)" "$(cat all)"
quiet "$LOCKSTEP" gc --grace 0 --dry-run
said "gc --dry-run says why" "^stays .* pin before$"
check "pin list" "$LOCKSTEP" pin list
said "it names the pin" "^before +${token:0:16} .*the test$"
fails "another one's pin is not renewed" 1 "is not the one that was taken" -- "$LOCKSTEP" pin renew before --taken 5
check "pin renew" "$LOCKSTEP" pin renew before --taken "$taken"
said "until it is released" "pin before is held until it is released"
check "pin release" "$LOCKSTEP" pin release before
quiet "$LOCKSTEP" gc --grace 0
check "then gc takes what nothing names" test "$(blobs | wc -l)" -lt "$(wc -l <all)"
fails "a pin that is not there" 1 "there is no pin named" -- "$LOCKSTEP" pin show before

quiet "$LOCKSTEP" kv put user/ada '{"born":1815}'
check "gc goes on beside rows of a user's own" "$LOCKSTEP" gc
quiet "$LOCKSTEP" kv put mine x
fails "another key stops it, and it says how to go on" 1 "keys of your own begin with user/" -- "$LOCKSTEP" gc
quiet "$LOCKSTEP" kv del mine
check "gc after that" "$LOCKSTEP" gc
finish
