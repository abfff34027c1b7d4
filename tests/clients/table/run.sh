#!/bin/bash
# Google's clients of Bigtable against `lockstep table serve`: Python's; where Go is, Go's with its own integration tests, a server
# that is killed under its load, and grpcurl; cbt where it is installed. LOCKSTEP: the binary; CLIENTS: a folder with python/ and
# bin/; PROTO: the folder of descriptor sets.
set -eu
cd "$(dirname "$0")"
top=$(mktemp -d)
pid=
trap '[ -z "$pid" ] || kill -9 "$pid" 2>/dev/null || true; rm -rf "$top"' EXIT
start() {
    "$LOCKSTEP" table serve --store "$top/store" --listen "127.0.0.1:${port:-0}" "$@" >"$top/out" 2>"$top/err" &
    pid=$!
    for _ in $(seq 200); do grep -qs ^export "$top/out" && break; sleep 0.05; done
    eval "$(grep ^export "$top/out")"
    [ -n "${BIGTABLE_EMULATOR_HOST:-}" ] || { echo "the server does not start:"; cat "$top/err"; exit 1; }
    port=${BIGTABLE_EMULATOR_HOST##*:}
}
stop() { # it ends by itself, with 0
    kill "$pid"
    wait "$pid" || { echo "the server ended with $?"; cat "$top/err"; exit 1; }
    pid=
}

start
echo "== Python"
"$CLIENTS/python/bin/python" -W ignore protos.py $(find "$PROTO/google/bigtable" -name '*.desc')
"$CLIENTS/python/bin/python" -W ignore python.py

if [ -x "$CLIENTS/bin/client" ]; then
    echo "== Go"
    "$CLIENTS/bin/client" check
    echo "== a server that is killed"
    for _ in 1 2 3; do
        "$CLIENTS/bin/client" load >>"$top/told" &
        load=$!
        sleep 2
        kill -9 "$pid"
        wait "$pid" 2>/dev/null || true
        wait "$load"
        start
        "$CLIENTS/bin/client" verify "$top/told"
    done
fi
if [ -x "$CLIENTS/bin/emulator" ]; then
    echo "== beside Google's emulator"
    "$CLIENTS/bin/emulator" -port 18088 >/dev/null 2>&1 &
    emulator=$!
    sleep 1
    "$CLIENTS/bin/client" differential 127.0.0.1:18088 2000 || { kill "$emulator"; exit 1; }
    kill "$emulator"
fi
if [ -x "$CLIENTS/bin/integration" ]; then
    # Against an emulator, as which we are asked, the suite skips what Google's lacks. Ours lacks aggregates and types besides.
    echo "== Go's own integration tests"
    env -u BIGTABLE_EMULATOR_HOST LOCKSTEP_TABLES="$BIGTABLE_EMULATOR_HOST" "$CLIENTS/bin/integration" -test.run TestIntegration -test.v >"$top/integration" 2>&1 || true
    failed=$(sed -n 's/^--- FAIL: TestIntegration_\([A-Za-z_]*\).*/\1/p' "$top/integration" | sort | xargs)
    echo "passed $(grep -c '^ *--- PASS' "$top/integration"), skipped $(grep -c '^ *--- SKIP' "$top/integration"), failed: $failed"
    [ "$failed" = "Aggregates UpdateFamilyValueType" ] || { grep -E '^ *--- FAIL|_test.go:' "$top/integration"; exit 1; }
fi
if command -v cbt >/dev/null; then
    echo "== cbt"
    c() { cbt -project p -instance i "$@" 2>"$top/cbt"; }
    c createtable cbt families=f:maxversions=2
    c createfamily cbt g
    c setgcpolicy cbt g "maxversions=3 or maxage=90000d"
    c set cbt r1 f:q=one@1000 g:q=two@2000
    c set cbt r2 f:q=three@1000
    [ "$(c count cbt)" = 2 ]
    [ "$(c lookup cbt r1 | grep -c '"one"\|"two"')" = 2 ]
    [ "$(c read cbt prefix=r2 | grep -c '"three"')" = 1 ]
    [ "$(c read cbt regex='r.' cells-per-column=1 | grep -c '^r')" = 2 ]
    c ls cbt | grep -q "g.*90000d\|g.*versions() > 3"
    c addtocell cbt r1 f:n=1 2>/dev/null && exit 1
    c deletecolumn cbt r1 f q
    c deleterow cbt r2
    [ "$(c count cbt)" = 1 ]
    c deletefamily cbt g
    [ "$(c count cbt)" = 0 ]
    c deletetable cbt
    echo "cbt: 16 commands"
fi
if [ -x "$CLIENTS/bin/grpcurl" ]; then
    echo "== grpcurl"
    g() { "$CLIENTS/bin/grpcurl" -plaintext "$@"; }
    i=projects/p/instances/i
    g "$BIGTABLE_EMULATOR_HOST" list | grep -qx google.bigtable.v2.Bigtable
    g -d "{\"parent\": \"$i\", \"table_id\": \"curl\", \"table\": {\"column_families\": {\"f\": {}}}}" "$BIGTABLE_EMULATOR_HOST" \
        google.bigtable.admin.v2.BigtableTableAdmin/CreateTable | grep -q '"granularity": "MILLIS"'
    g -d "{\"table_name\": \"$i/tables/curl\", \"row_key\": \"cm93\", \"mutations\": [{\"set_cell\": {\"family_name\": \"f\",
        \"column_qualifier\": \"cQ==\", \"timestamp_micros\": 1000, \"value\": \"dmFsdWU=\"}}]}" "$BIGTABLE_EMULATOR_HOST" \
        google.bigtable.v2.Bigtable/MutateRow >/dev/null
    g -d "{\"table_name\": \"$i/tables/curl\"}" "$BIGTABLE_EMULATOR_HOST" google.bigtable.v2.Bigtable/ReadRows | grep -q '"value": "dmFsdWU="'
    echo "grpcurl: a table, a row"
fi
stop
