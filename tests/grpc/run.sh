#!/bin/bash
# Real clients of gRPC and HTTP/2 against tests/grpc_server.c: grpcio, plain and TLS, sanitized where SAN's build is given; where Go is,
# grpcurl and h2spec as well. SERVER: the program; CLIENTS: a folder with python/ (grpcio) and bin/ (Go's); DESCRIPTORS.
set -eu
cd "$(dirname "$0")/../.."
top=$(mktemp -d)
pid=
trap '[ -z "$pid" ] || kill -9 "$pid" 2>/dev/null || true; rm -rf "$top"' EXIT
start() { # ARGUMENTS behind the address
    "$SERVER" 127.0.0.1:0 "$DESCRIPTORS" "$@" >"$top/out" 2>"$top/err" &
    pid=$!
    for _ in $(seq 200); do [ -s "$top/out" ] && break; sleep 0.05; done
    address=$(head -n 1 "$top/out")
    [ -n "$address" ] || { echo "grpc: the server does not start:"; cat "$top/err"; exit 1; }
}
stop() { # it ends by itself, with 0
    kill "$pid" 2>/dev/null || true
    wait "$pid" || { echo "grpc: the server ended with $?"; cat "$top/err"; exit 1; }
    pid=
}
port() { echo "${address##*:}"; }

echo "== grpcio"
start
PID=$pid "$CLIENTS/python/bin/python" tests/grpc/client.py "$address"
stop
echo "== grpcio, TLS"
openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -keyout "$top/key.pem" -out "$top/cert.pem" -days 2 \
    -subj /CN=localhost -addext subjectAltName=DNS:localhost,IP:127.0.0.1 2>/dev/null
start "$top/cert.pem" "$top/key.pem"
PID=$pid "$CLIENTS/python/bin/python" tests/grpc/client.py "$address" "$top/cert.pem"
stop

if [ -x "$CLIENTS/bin/grpcurl" ]; then
    echo "== grpcurl"
    start
    g() { "$CLIENTS/bin/grpcurl" -plaintext "$@"; }
    g "$address" list | grep -qx lockstep.test.Echo
    g "$address" describe lockstep.test.Echo | grep -q 'rpc Both ( stream .lockstep.test.Text ) returns ( stream .lockstep.test.Text );'
    [ "$(g "$address" grpc.health.v1.Health/Check | tr -d ' \n')" = '{"status":"SERVING"}' ]
    [ "$(g -d '{"data":"aGk="}' -H 'x-count: 3' "$address" lockstep.test.Echo/Down | grep -c aGk=)" = 3 ]
    g -d '{"data":"aGk="}' -H 'x-status: 5' "$address" lockstep.test.Echo/One 2>&1 | grep -q 'Code: NotFound'
    stop
else
    echo "== grpcurl: not here (Go is needed), left out"
fi
if [ -x "$CLIENTS/bin/h2spec" ]; then
    echo "== h2spec"
    start
    "$CLIENTS/bin/h2spec" -h 127.0.0.1 -p "$(port)" -P /lockstep.test.Echo/One -o 3 >"$top/h2spec" 2>&1 || true
    tail -n 1 "$top/h2spec"
    # tests/grpc/h2spec.txt: the cases that an answer to the first HEADERS alone makes fail, and why
    sed -n '/^Failures/,$p' "$top/h2spec" | sed -n 's/^ *× [0-9]*: //p' | sort -u >"$top/failed"
    grep -v '^#' tests/grpc/h2spec.txt | sort -u >"$top/known"
    unknown=$(comm -23 "$top/failed" "$top/known")
    [ -z "$unknown" ] || { echo "grpc: h2spec has new complaints:"; echo "$unknown"; sed -n '/^Failures/,$p' "$top/h2spec"; exit 1; }
    stop
else
    echo "== h2spec: not here (Go is needed), left out"
fi
echo "grpc: ok"
