#!/bin/bash
# The real engine on aarch64 under qemu: NEON and the reference there give the bits of this machine's kernels.
. "$(dirname "$0")/lib.sh"
if [ ! -x "$TOOLS/bare-arm64" ] || ! command -v qemu-aarch64 >/dev/null; then
    echo "# not tested: packages gcc-aarch64-linux-gnu and qemu-user are not here"
    finish
fi
quiet "$TOOLS/bare" here 5 && quiet "$TOOLS/bare" here1 1 || { not_ok "the engine here"; finish; }
check "steps of both families with NEON" env LOCKSTEP_ISA=neon qemu-aarch64 "$TOOLS/bare-arm64" there 5
check "give the bits of $("$LOCKSTEP" doctor --json | field isa)" cmp here there
check "a step with aarch64's reference" env LOCKSTEP_ISA=ref qemu-aarch64 "$TOOLS/bare-arm64" there1 1
check "gives the same bits" cmp here1 there1
finish
