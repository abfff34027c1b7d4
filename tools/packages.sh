#!/bin/bash
# tools/packages.sh run|test: installs the Debian packages of packages.txt that are missing; run: its first block, test: all.
# The command is shown first. INSTALL=no forbids it: then missing packages are an error that names them.
set -eu
cd "$(dirname "$0")/.."
case "${1:-}" in
run) list=$(sed '/^# test/,$d; s/#.*//' packages.txt) ;;
test) list=$(sed 's/#.*//' packages.txt) ;;
*) echo "usage: tools/packages.sh run|test" >&2 && exit 2 ;;
esac
if ! command -v dpkg-query >/dev/null; then
    echo "packages: this is no Debian; make sure that what packages.txt lists is here" >&2
    exit 0
fi
missing=
for p in $list; do
    [ "$(dpkg-query -W -f='${db:Status-Status}' "$p" 2>/dev/null)" = installed ] || missing="$missing $p"
done
[ -n "$missing" ] || exit 0
if [ "${INSTALL:-yes}" = no ]; then
    echo "packages: missing:$missing; install them, or run without INSTALL=no" >&2
    exit 1
fi
if [ "$(id -u)" = 0 ]; then root=
elif command -v sudo >/dev/null; then root="sudo "
else
    echo "packages: missing:$missing; installing them needs root or sudo. As root:  apt-get update && apt-get install$missing" >&2
    exit 1
fi
command="${root}apt-get update && ${root}env DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends$missing"
echo "+ $command"
sh -c "$command" >&2 || { echo "packages: that failed; missing:$missing" >&2 && exit 1; }
