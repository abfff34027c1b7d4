#!/bin/bash
# A PostgreSQL of a test's own in a folder: socket, data and log lie there, nothing else can reach it.
#   tests/postgres.sh start DIR [SETTING=VALUE...]   makes it (DIR may be there, empty) or starts it again; prints its URL
#   tests/postgres.sh stop DIR                       ends it; the folder stays
#   tests/postgres.sh kill DIR                       kill -9 of all its processes
#   tests/postgres.sh standby DIR OF                 makes and starts one that follows the server in OF, which waits for it from now on
#   tests/postgres.sh promote DIR                    makes it a server by itself
# Needs initdb, pg_ctl (Debian: postgresql). As root the server is the user postgres, as PostgreSQL refuses root.
# Exit status 77: PostgreSQL is not here.
set -eu
command=${1:-} dir=${2:-}
[ -n "$dir" ] || { echo "usage: tests/postgres.sh start|stop|kill|standby|promote DIR [SETTING=VALUE...]" >&2 && exit 2; }
bin=$(ls -d /usr/lib/postgresql/*/bin 2>/dev/null | sort -V | tail -n 1)
[ -x "$bin/initdb" ] || bin=$(dirname "$(command -v initdb || echo /none/initdb)")
[ -x "$bin/initdb" ] || { echo "there is no initdb here: install postgresql" >&2 && exit 77; }
as() { if [ "$(id -u)" = 0 ]; then (cd / && setpriv --reuid=postgres --regid=postgres --init-groups env -u LD_PRELOAD "$@"); else "$@"; fi; }
case $command in
start)
    shift 2
    mkdir -p "$dir"
    dir=$(cd "$dir" && pwd)
    if [ ! -d "$dir/data" ]; then
        [ "$(id -u)" != 0 ] || chown postgres "$dir"
        as "$bin/initdb" -D "$dir/data" -U postgres --auth=trust --encoding=UTF8 --locale=C --no-sync >"$dir/initdb.log" 2>&1 ||
            { cat "$dir/initdb.log" >&2 && exit 1; }
        printf '%s\n' "listen_addresses = ''" "unix_socket_directories = '$dir'" "max_connections = 100" "shared_buffers = 64MB" \
            "log_min_messages = fatal" "log_checkpoints = off" >>"$dir/data/postgresql.conf"
    fi
    [ $# -eq 0 ] || printf '%s\n' "$@" | sed "s/=/ = '/; s/\$/'/" >>"$dir/data/postgresql.conf"
    as "$bin/pg_ctl" -D "$dir/data" status >/dev/null 2>&1 ||
        as "$bin/pg_ctl" -D "$dir/data" -l "$dir/log" -w -t 60 start >"$dir/start.log" 2>&1 || { cat "$dir/start.log" "$dir/log" >&2 && exit 1; }
    echo "postgresql://postgres@/postgres?host=$dir"
    ;;
stop) as "$bin/pg_ctl" -D "$dir/data" -m fast -w -t 60 stop >/dev/null 2>&1 || "$0" kill "$dir" ;;
standby)
    of=$(cd "$3" && pwd)
    mkdir -p "$dir"
    dir=$(cd "$dir" && pwd)
    [ "$(id -u)" != 0 ] || chown postgres "$dir"
    rm -rf "$dir/data"
    as "$bin/pg_basebackup" -h "$of" -U postgres -D "$dir/data" -R -X stream -c fast --no-sync >"$dir/backup.log" 2>&1 || { cat "$dir/backup.log" >&2 && exit 1; }
    sed -i '/synchronous_standby_names/d' "$dir/data/postgresql.conf" "$dir/data/postgresql.auto.conf"
    echo "unix_socket_directories = '$dir'" >>"$dir/data/postgresql.conf"
    "$0" start "$dir"
    echo "synchronous_standby_names = '*'" >>"$of/data/postgresql.conf"
    as "$bin/pg_ctl" -D "$of/data" reload >/dev/null
    for _ in $(seq 200); do # until commits wait for it
        [ "$(as "$bin/psql" -h "$of" -U postgres -Atc "SELECT count(*) FROM pg_stat_replication WHERE sync_state = 'sync'")" = 0 ] || exit 0
        sleep 0.05
    done
    echo "tests/postgres.sh: the standby does not follow" >&2 && exit 1
    ;;
promote) as "$bin/pg_ctl" -D "$dir/data" -w -t 60 promote >/dev/null ;;
kill)
    pid=$(head -n 1 "$dir/data/postmaster.pid" 2>/dev/null) || exit 0
    children=$(ps -o pid= --ppid "$pid" || true)
    kill -9 "$pid" $children 2>/dev/null || true
    for _ in $(seq 100); do kill -0 "$pid" $children 2>/dev/null || break && sleep 0.05; done
    ;;
*) echo "tests/postgres.sh: $command is none of start, stop, kill, standby, promote" >&2 && exit 2 ;;
esac
