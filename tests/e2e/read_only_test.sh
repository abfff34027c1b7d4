#!/bin/bash
# A store that one may only read: every command that does not write works in it, every other one says at once that it cannot. As a
# user who is not root, since root may do everything; by root also on a file system that is mounted read-only.
. "$(dirname "$0")/lib.sh"

standard_data
config c.ini run.name=r run.steps=6
quiet "$LOCKSTEP" train c.ini || exit 1
quiet "$LOCKSTEP" model pin r --name m || exit 1
quiet "$LOCKSTEP" table create t f && quiet "$LOCKSTEP" table set t r f:q=v || exit 1
before=$(find store -type f -exec cksum {} + | sort | cksum)
writes='no permission to write .*only be read'

# user COMMAND...: as an ordinary user (nobody when this is root)
user() {
    if [ "$(id -u)" -eq 0 ]; then setpriv --reuid=65534 --regid=65534 --clear-groups "$@"; else "$@"; fi
}
# reads AS...: what works in a store that one may only read, each through the command AS
reads() {
    local where=$1 first
    shift
    for first in "runs list" "runs show r" "runs log r" "runs plot r --out $PLACE/r.svg" "dataset list" "dataset show d" "dataset verify d" "dataset cat d" \
        "tokenizer list" "tokenizer show t" "tokenizer encode t text.txt" "model list" "model show m" "eval r" "eval m --dataset d" \
        "generate r the --tokens 4" "generate m the --tokens 4" "verify r" "gc --dry-run" "doctor" "table list" "table read t" "table digest t"; do
        check "$where: $first" "$@" "$LOCKSTEP" $first
    done
    check "$where: model export" "$@" "$LOCKSTEP" model export m "$PLACE/model.$where"
    check "$where: dataset export" "$@" "$LOCKSTEP" dataset export d --format npy "$PLACE/data.$where"
    check "$where: train --dry-run" "$@" "$LOCKSTEP" train c.ini run.name=other --dry-run
    check "$where: train --from --dry-run" "$@" "$LOCKSTEP" train --from r run.steps=9 --dry-run
    check "$where: runs compare" "$@" "$LOCKSTEP" runs compare r r
}
refusals() {
    local where=$1
    shift
    fails "$where: train" 1 "$writes" -- "$@" "$LOCKSTEP" train c.ini run.name=other
    fails "$where: train --resume" 1 "$writes" -- "$@" "$LOCKSTEP" train --resume r
    fails "$where: runs rm" 1 "$writes" -- "$@" "$LOCKSTEP" runs rm r
    fails "$where: model rm" 1 "$writes" -- "$@" "$LOCKSTEP" model rm m
    fails "$where: gc" 1 "$writes" -- "$@" "$LOCKSTEP" gc
    fails "$where: table set" 1 "$writes" -- "$@" "$LOCKSTEP" table set t r f:q=w
    fails "$where: table create" 1 "no permission to write" -- "$@" "$LOCKSTEP" table create u f
    fails "$where: tokenizer train" 1 "no permission to write" -- "$@" "$LOCKSTEP" tokenizer train text.txt --vocab 300 --name x
    fails "$where: dataset build" 1 "$writes" -- "$@" "$LOCKSTEP" dataset build x text.txt --tokenizer t
}

# --- files and folders without permission to write -------------------------------------------------------------------------
PLACE=$WORK/place
mkdir "$PLACE" && chmod 777 "$PLACE" && chmod 755 "$WORK"
find store -type d -exec chmod 555 {} + && find store -type f -exec chmod 444 {} +
reads user user
refusals user user
chmod 700 store
if [ "$(id -u)" -eq 0 ]; then
    fails "another user's store: runs list" 1 "no permission to read the store .*belongs to user 0" -- user "$LOCKSTEP" runs list
    fails "another user's store: train" 1 "no permission to read the store" -- user "$LOCKSTEP" train c.ini run.name=other
fi
fails "no store is no question of permission" 1 "there is no store at" -- user env LOCKSTEP_STORE="$PLACE/none" "$LOCKSTEP" runs list
equal "nothing was changed" "$(find store -type f -exec cksum {} + | sort | cksum)" "$before"

# --- a file system that is mounted read-only -------------------------------------------------------------------------------
if [ "$(id -u)" -eq 0 ] && mkdir mounted && mount --bind store mounted 2>/dev/null; then
    MOUNTED=$WORK/mounted
    if mount -o remount,bind,ro mounted 2>/dev/null; then
        export LOCKSTEP_STORE=$MOUNTED
        reads mounted env
        refusals mounted env
        equal "nothing was changed there" "$(find store -type f -exec cksum {} + | sort | cksum)" "$before"
    fi
else
    ok "a read-only mount: skipped, this user may not mount"
fi
finish
