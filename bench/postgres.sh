#!/bin/bash
# bench/postgres.sh [ROWS] [SECONDS]: kv over a PostgreSQL that it starts in a temporary folder, beside plain pipelined libpq.
set -eu
cd "$(dirname "$0")/.."
BUILD=${BUILD:-build}
dir=$(mktemp -d "${TMPDIR:-/tmp}/lockstep-bench.XXXXXX")
trap 'tests/postgres.sh stop "$dir/pg"; rm -rf "$dir"' EXIT
chmod 755 "$dir"
url=$(tests/postgres.sh start "$dir/pg" shared_buffers=256MB)
psql=$(ls /usr/lib/postgresql/*/bin/psql | tail -n 1)
"$psql" -q "$url" -c 'CREATE SCHEMA bench; CREATE TABLE bench.plain (key bytea PRIMARY KEY, value bytea NOT NULL);
    CREATE TABLE bench.plain_commits (id uuid PRIMARY KEY); CREATE TABLE bench.plain_clock (time bigint NOT NULL); INSERT INTO bench.plain_clock VALUES (0)'
"$BUILD/bench/postgres" "$url&schema=bench" "$@"
