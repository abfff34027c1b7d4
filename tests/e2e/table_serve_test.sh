#!/bin/bash
# lockstep table serve: how it starts and ends, what it refuses. What it answers: src/store/bigtable/bigtable_test.c, tests/clients/table.
. "$(dirname "$0")/lib.sh"

serve_tables() { # NAME ARGUMENT...: its lines are in NAME.out
    local name=$1
    shift
    "$LOCKSTEP" table serve --listen 127.0.0.1:0 "$@" >"$name.out" 2>"$name.err" &
    server=$!
    for _ in $(seq 100); do grep -qs 'export\|address' "$name.out" && return 0; kill -0 $server 2>/dev/null || return 1; sleep 0.05; done
    return 1
}
if ! serve_tables first --metrics 127.0.0.1:0; then
    if grep -q 'this build serves no tables' first.err; then ok "a build without gRPC says so"; else not_ok "it listens" "$(cat first.out first.err)"; fi
    finish
fi
ok "it listens"
equal "it says how clients find it" "$(grep -c '^export BIGTABLE_EMULATOR_HOST=127.0.0.1:[0-9]*$' first.out)" 1
page=$(sed -n 's/^metrics  //p' first.out)
if command -v curl >/dev/null; then
    equal "metrics" "$(curl -s "$page" | grep -c '^# TYPE lk_grpc_' | sed 's/^[1-9][0-9]*$/some/')" some
fi
kill $server
wait $server
equal "SIGTERM ends it well" $? 0
if serve_tables second --json; then ok "--json"; else not_ok "--json" "$(cat second.err)"; fi
equal "as JSON it is an object" "$(python3 -c 'import json; print(sorted(json.load(open("second.out"))))')" "['address', 'metrics', 'tls']"
kill -INT $server
wait $server
equal "Ctrl-C ends it well" $? 0

fails "others may come only with keys" 2 'lets others come' 'no-keys' -- "$LOCKSTEP" table serve --listen 0.0.0.0:0
fails "a certificate without its key" 2 'go together' -- "$LOCKSTEP" table serve --tls-cert x.pem
fails "keys that are not there" 1 'nix' -- "$LOCKSTEP" table serve --keys nix
fails "an address that is none" 1 'listen|address|127' -- "$LOCKSTEP" table serve --no-keys --listen 127.0.0.1:99999
finish
