#!/bin/bash
# LevelDB's interface beside LevelDB: its own db/c_test.c against our header, and our cases on its library (make test-leveldb).
#   tests/leveldb.sh BUILD LEVELDB      LEVELDB: a folder of its source
# Of LevelDB nothing lies in this repository: who runs this has fetched it.
set -eu
cd "$(dirname "$0")/.."
build=$(cd "$1" && pwd) leveldb=${2:-}
if [ ! -f "$leveldb/db/c_test.c" ]; then
    [ -z "$leveldb" ] || echo "test-leveldb: there is no $leveldb/db/c_test.c"
    cat <<TEXT
test-leveldb: LEVELDB names a folder of LevelDB's source, whose db/c_test.c is compiled against lockstep/leveldb.h:
  git clone --depth 1 --branch 1.23 https://github.com/google/leveldb
  make test-leveldb LEVELDB=leveldb
With LevelDB's library (Debian: libleveldb-dev) our cases run on that, too.
TEXT
    exit 1
fi
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

echo "== $leveldb/db/c_test.c"
mkdir -p "$work/include/leveldb"
echo '#include "lockstep/leveldb.h"' >"$work/include/leveldb/c.h"
library="$build/liblockstep.a ${LDLIBS:-}"
[ ! -e "$build/liblockstep.so" ] || library="$build/liblockstep.so -Wl,-rpath,$build"
${CC:-cc} ${SANITIZE:-} -I"$work/include" -Iinclude -o "$work/c_test" "$leveldb/db/c_test.c" $library
TEST_TMPDIR=$work/c_test_db "$work/c_test" 2>&1 | tail -n 1 | grep -x PASS

peer=$(ldconfig -p | awk '$1 ~ /^libleveldb\.so/ { print $NF; exit }')
[ -n "$peer" ] || echo "without LevelDB's library our cases run on ours only: apt-get install libleveldb-dev"
for t in leveldb open random; do
    echo "== src/store/leveldb/${t}_test ${peer:+beside $peer}"
    LOCKSTEP_TEST_LEVELDB=$peer LOCKSTEP_TEST_STEPS=20000 "$build/src/store/leveldb/${t}_test" >"$work/log" 2>&1 ||
        { cat "$work/log" && exit 1; }
    grep -E 'PASSED|SEED' "$work/log" | sort -u
done

if [ -n "$peer" ] && echo '#include <leveldb/c.h>' | ${CC:-cc} -E -x c - >/dev/null 2>&1; then
    echo "== examples/leveldb_copy.c"
    ${CC:-cc} examples/leveldb_copy.c -o "$work/theirs" -lleveldb
    ${CC:-cc} ${SANITIZE:-} -DLOCKSTEP -Iinclude examples/leveldb_copy.c -o "$work/ours" $library
    awk 'BEGIN { for (i = 0; i < 25000; i++) printf "%c%c%c%c%c%c%c%c%c%c%c%c%c%c%c%c%05d%s", 5, 0, 0, 0, 0, 0, 0, 0, 10, 0, 0, 0, 0, 0, 0, 0, i * 7919 % 25000, "some value" }' |
        "$work/theirs" in "$work/old"
    "$work/theirs" out "$work/old" >"$work/rows"
    "$work/ours" in "$work/new" <"$work/rows"
    "$work/ours" out "$work/new" | cmp - "$work/rows"
    echo "$(wc -c <"$work/rows") bytes of rows are the same"
    "$build/lockstep" kv check --store "$work/new"
fi
echo "test-leveldb: ok"
