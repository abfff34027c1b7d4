#!/bin/bash
# 1 GiB to an S3 server of this machine and back, beside curl on the same server, one after the other:
#   bench/s3.sh [MiB [rounds]]
# curl sends one PUT and gets one GET, unsigned body, to and from a file; it hashes nothing. Ours hashes all bytes, keeps them in
# the cache, and says the most anonymous memory that it had. `make test-s3` installs the server.
[ -n "${BENCH_MACHINE:-}" ] || exec python3 "$(dirname "$0")/common.py" "$0" "$@" # says whether the machine was ours
set -eu
cd "$(dirname "$0")/.."
BUILD=${BUILD:-build} WEED=${WEED:-build/s3/bin/weed}
mib=${1:-1024} rounds=${2:-5}
make -s -j"$(nproc)" BUILD="$BUILD" "$BUILD/bench/s3_bench" build/s3/ready
work=$(mktemp -d)
trap 'kill -9 $s3_server 2>/dev/null || :; wait $s3_server 2>/dev/null || :; rm -rf "$work"' EXIT
. tests/s3/server.sh
s3_start "$work/s3"
export LOCKSTEP_CACHE=$work/cache
dd if=/dev/urandom of="$work/file" bs=1M count="$mib" status=none
timed() { # name command...: its seconds
    local name=$1 began=$EPOCHREALTIME
    shift
    "$@"
    awk -v a="$began" -v b="$EPOCHREALTIME" -v name="$name" -v mib="$mib" 'BEGIN { printf "%s %.3f s %.0f MB/s\n", name, b - a, mib * 1.048576 / (b - a) }'
}
signed() { curl -sSf --aws-sigv4 aws:amz:us-east-1:s3 --user testkey:testsecret "$@" >/dev/null; }
for i in $(seq "$rounds"); do
    printf '%08d' "$i" | dd of="$work/file" conv=notrunc status=none # another blob
    timed "curl-up" signed -T "$work/file" "$AWS_ENDPOINT_URL/bucket/curl" -H 'x-amz-content-sha256: UNSIGNED-PAYLOAD'
    "$BUILD/bench/s3_bench" up s3://bucket/bench "$work/file" | tee "$work/line"
    root=$(awk '{ print $NF }' "$work/line")
    rm -rf "$LOCKSTEP_CACHE" "$work/back"
    timed "curl-down" signed -o "$work/back" "$AWS_ENDPOINT_URL/bucket/curl"
    rm -f "$work/back"
    "$BUILD/bench/s3_bench" down s3://bucket/bench "$root" "$work/file"
    rm -rf "$LOCKSTEP_CACHE"
    signed -X DELETE "$AWS_ENDPOINT_URL/bucket/bench/${root:0:2}/${root:2}"
done | tee "$work/all"
awk '{ s[$1] = s[$1] " " $2; if ($1 == "up" || $1 == "down") if ($6 > m[$1]) m[$1] = $6 }
    function median(t,   a, n, i, j, x) { n = split(t, a, " ")
        for (i = 2; i <= n; i++) { x = a[i]; for (j = i - 1; j > 0 && a[j] > x; j--) a[j + 1] = a[j]; a[j + 1] = x }
        return a[int((n + 1) / 2)] }
    END { for (w = 0; w < 2; w++) { k = w ? "down" : "up"
        printf "%s: %.3f s, curl %.3f s: %.0f%% of curl; anonymous memory %.1f MiB at most\n", k, median(s[k]), median(s["curl-" k]),
               100 * median(s["curl-" k]) / median(s[k]), m[k] / 1024 } }' "$work/all"
