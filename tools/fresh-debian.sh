#!/bin/bash
# tools/fresh-debian.sh [DIR]: a fresh Debian 12 in a folder (debootstrap), the commit of this checkout cloned into it, then
# `make demo` and `make test` as a newcomer types them: a user of its own who may use sudo and has git and make, no more. One
# line each says passed or failed; exits 1 if any failed. Needs root, debootstrap and about 4 GB. Without DIR the folder goes
# away at the end; with DIR it stays, with the logs demo.log and test.log, and a second call uses its system again.
#   MIRROR     Debian's packages, http://deb.debian.org/debian
#   APT_CONF   a file of apt settings (a proxy, say) that the new system gets as well
#   TARGETS    "demo test": what is made
set -euo pipefail
here=$(cd "$(dirname "$0")/.." && pwd)
die() { echo "fresh-debian: $*" >&2; exit 1; }
[ "$(id -u)" = 0 ] || die "needs root: debootstrap and chroot do"
command -v debootstrap >/dev/null || die "debootstrap is missing: apt-get install debootstrap"
# mounts of our own: they are gone when this script is, however it ends
[ -n "${FRESH_MOUNTS:-}" ] || FRESH_MOUNTS=yes exec unshare --mount --propagation private "$0" "$@"
dir=${1:-}
[ -n "$dir" ] || { dir=$(mktemp -d "${TMPDIR:-/tmp}/lockstep-fresh.XXXXXX") && trap 'umount -R "$root"/{proc,sys,dev} 2>/dev/null; rm -rf --one-file-system "$dir"' EXIT; }
mkdir -p "$dir"
dir=$(cd "$dir" && pwd)
root=$dir/root

if [ ! -e "$dir/ready" ]; then
    rm -rf --one-file-system "$root"
    debootstrap --variant=minbase bookworm "$root" "${MIRROR:-http://deb.debian.org/debian}" >"$dir/debootstrap.log" 2>&1 ||
        { tail -n 20 "$dir/debootstrap.log" >&2; die "debootstrap failed"; }
    [ -z "${APT_CONF:-}" ] || cp "$APT_CONF" "$root/etc/apt/apt.conf.d/99given"
    touch "$dir/ready"
fi
mount -t proc proc "$root/proc"
mount -t sysfs -o ro sysfs "$root/sys" # mpirun looks there for processors
mount --rbind /dev "$root/dev"
cp -L /etc/resolv.conf "$root/etc/resolv.conf"
printf '127.0.0.1\tlocalhost\n127.0.1.1\t%s\n' "$(hostname)" >"$root/etc/hosts" # as Debian's installer does: mpirun asks for it
inside() { env -i PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin LANG=C.UTF-8 TERM=dumb chroot "$root" "$@"; }
inside sh -c 'apt-get update && DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends git make sudo ca-certificates
    id newcomer || useradd -m -s /bin/bash newcomer
    echo "newcomer ALL=(ALL) NOPASSWD: ALL" >/etc/sudoers.d/newcomer' >"$dir/system.log" 2>&1 ||
    { tail -n 20 "$dir/system.log" >&2; die "the new system cannot install git, make and sudo"; }

rm -rf "$root/home/newcomer/lockstep"
git -c safe.directory='*' clone -q --no-hardlinks "$here" "$root/home/newcomer/lockstep"
inside chown -R newcomer: /home/newcomer/lockstep
status=0
for target in ${TARGETS:-demo test}; do
    began=$SECONDS
    if inside su - newcomer -c "cd lockstep && make $target" >"$dir/$target.log" 2>&1 </dev/null; then result=passed; else result=failed status=1; fi
    [ $result = passed ] || tail -n 40 "$dir/$target.log"
    echo "fresh Debian 12 $(inside dpkg --print-architecture), make $target: $result ($((SECONDS - began)) s; $(tail -n 1 "$dir/$target.log"))"
done
exit $status
