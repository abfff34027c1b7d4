#!/bin/bash
# tools/other-compilers.sh [NAME...]: builds with what `make` does not use by default, runs the tests, and holds the bits
# against build/lockstep's. One line a configuration says passed or failed (build/other/NAME.log has the rest); exits 1 if
# any failed.
#   clang     clang instead of cc
#   gcc-O0    without optimisation
#   x86-64    -march=x86-64; beside the tests, on an emulated CPU without FMA, where every fma is our exact software one
#   arm64     cross-built against Debian's arm64 libraries (debootstrap fetches them; root), run under qemu-user
set -u
cd "$(dirname "$0")/.." || exit 1
export LC_ALL=C
unset ONLY # that of make names configurations, that of tests/run.sh tests
host=$PWD/build/lockstep other=$PWD/build/other jobs=${JOBS:-$(nproc)}
die() { echo "other-compilers: $*" >&2; exit 1; }
need() { command -v "$1" >/dev/null || { echo "the program $1 is missing: apt-get install $2"; return 1; }; }
[ -x "$host" ] || die "build/lockstep is missing: make"
mkdir -p "$other"

# --- what every configuration must give ------------------------------------------------------------------------------------
fingerprint() { "$@" doctor --threads 2 | awk '/^fingerprint/ { print $2 }'; }
# root SETTINGS COMMAND...: tokenizer, dataset and some steps of the demo's configuration by that program: the weights' root
root() {
    local settings=$1 store
    shift
    store=$(mktemp -d "$other/store.XXXXXX")
    export LOCKSTEP_STORE=$store/store
    LOCKSTEP=$host bash -c '. "$1" && text 200000 1 >"$0"' "$store/text" "$PWD/tests/e2e/lib.sh"
    "$@" tokenizer train "$store/text" --vocab 1024 --name demo >&2 && "$@" dataset build demo "$store/text" --tokenizer demo >&2 &&
        "$@" train examples/demo.ini $settings optimizer.warmup=1 eval.every=0 checkpoint.every=0 >&2 &&
        "$@" generate demo "the " --tokens 8 >&2 && "$@" runs show demo --json | sed -n 's/.*"weights_root": "\([0-9a-f]*\)".*/\1/p'
    rm -rf "$store"
}
same() { [ "$2" = "$3" ] && [ -n "$2" ] || { echo "$1: $2, of build/lockstep: $3"; return 1; }; }
NATIVE="run.steps=20" EMULATED="run.steps=2 batch.sequences=2 batch.grains=2 model.context=64 model.layers=2"
bits() { # SETTINGS COMMAND...
    local settings=$1
    shift
    same fingerprint "$(fingerprint "$@")" "$(fingerprint "$host")" && same "weights root" "$(root "$settings" "$@")" "$(root "$settings" "$host")"
}
quiet_make() { # no warning either
    make -s -j"$jobs" "$@" 2>"$other/warnings" || { cat "$other/warnings"; return 1; }
    ! grep -E 'warning:' "$other/warnings" || return 1
}
# Builds all and every test, runs the unit tests and those end-to-end tests whose names hold "roots" or "cli".
tested() { # NAME make's settings...
    local build=build/other/$1 t
    shift
    quiet_make BUILD="$build" NEON_CC=none "$@" test-programs || return 1
    E2E=no LOCKSTEP=$build/lockstep BUILD=$build JOBS=$jobs tests/run.sh $(find "$build/src" -name '*_test' -type f | sort) || return 1
    for t in roots cli; do LOCKSTEP=$PWD/$build/lockstep BUILD=$build bash tests/e2e/${t}_test.sh || return 1; done
}

# --- configurations ----------------------------------------------------------------------------------------------------------
try_clang() { need clang clang && tested clang CC=clang && bits "$NATIVE" build/other/clang/lockstep; }
try_gcc-O0() { tested gcc-O0 OPT=-O0 && bits "$NATIVE" build/other/gcc-O0/lockstep; }
try_x86-64() {
    [ "$(uname -m)" = x86_64 ] || { echo "this is no x86-64"; return 1; }
    need qemu-x86_64 qemu-user && tested x86-64 OPT='-O2 -march=x86-64' && bits "$NATIVE" build/other/x86-64/lockstep &&
        { [ "$(qemu-x86_64 -cpu Westmere build/other/x86-64/lockstep doctor | sed -n 's/.*(here: \(.*\))/\1/p')" = "blocked ref" ] || { echo "the emulated CPU has more than plain C's kernels"; return 1; }; } &&
        bits "$EMULATED" qemu-x86_64 -cpu Westmere build/other/x86-64/lockstep
}
arm64_root() {
    local root=$other/arm64-root
    [ ! -e "$root.ready" ] || return 0
    need debootstrap debootstrap && need aarch64-linux-gnu-gcc gcc-aarch64-linux-gnu && need qemu-aarch64 qemu-user || return 1
    rm -rf "$root"
    # the first stage only: nothing of it is executed
    debootstrap --foreign --arch=arm64 --variant=minbase --include=$(sed '/^# test/,$d; s/#.*//' packages.txt | grep -E '^lib.*-dev|^zlib' | grep -v openmpi | paste -sd,) \
        bookworm "$root" "${MIRROR:-http://deb.debian.org/debian}" || return 1
    for p in "$root"/var/cache/apt/archives/*.deb; do dpkg -x "$p" "$root" || return 1; done
    touch "$root.ready"
}
try_arm64() {
    local root=$other/arm64-root
    arm64_root && quiet_make BUILD=build/other/arm64 CC="aarch64-linux-gnu-gcc --sysroot=$root" MPI=no all &&
        bits "$EMULATED" qemu-aarch64 -L "$root" build/other/arm64/lockstep && LOCKSTEP_ISA=ref bits "$EMULATED" qemu-aarch64 -L "$root" build/other/arm64/lockstep
}

status=0
for name in ${*:-clang gcc-O0 x86-64 arm64}; do
    declare -F "try_$name" >/dev/null || die "$name: clang, gcc-O0, x86-64 and arm64 are there"
    began=$SECONDS
    if "try_$name" >"$other/$name.log" 2>&1 </dev/null; then result=passed; else result=failed status=1; fi
    [ $result = passed ] || tail -n 25 "$other/$name.log"
    echo "$name: $result ($((SECONDS - began)) s)"
done
exit $status
