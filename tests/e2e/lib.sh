# Sourced by every end-to-end script. The real binary is $LOCKSTEP; each script works in a directory of its own, which goes
# away with it. A check prints "ok - NAME" or "not ok - NAME" (then what happened, indented); tests/run.sh counts those lines.
set -u
export LC_ALL=C
: "${LOCKSTEP:?the path of the lockstep binary}"
TOOLS=${TOOLS:-$(dirname "$LOCKSTEP")/tests} # what make builds of tests/*.c
unset LOCKSTEP_ISA LOCKSTEP_MEMORY_BYTES LOCKSTEP_SHARED_MEMORY LOCKSTEP_MPI OMPI_ALLOW_RUN_AS_ROOT OMPI_ALLOW_RUN_AS_ROOT_CONFIRM
HERE=$(cd "$(dirname "$0")" && pwd)
WORK=$(mktemp -d "${TMPDIR:-/tmp}/lockstep-e2e.XXXXXX")
export LOCKSTEP_STORE=$WORK/store AWS_EC2_METADATA_DISABLED=true # no test asks a cloud for keys
trap 'repeat_line $?; kill $(jobs -p) 2>/dev/null; [ -z "${MOUNTED:-}" ] || umount "$MOUNTED"; chmod -R u+rwX "$WORK"; rm -rf "$WORK"' EXIT
cd "$WORK" || exit 1
PASSED=0 FAILED=0

ok() { echo "ok - $1" && PASSED=$((PASSED + 1)); }
not_ok() {
    echo "not ok - $1"
    shift
    [ $# -eq 0 ] || printf '%s\n' "$@" | head -c 4000 | sed 's/^/    /'
    FAILED=$((FAILED + 1))
}
finish() { exit $((FAILED > 0)); }
# client PREFIX PROGRAM ARGUMENT...: runs a client of tests/, whose checks are ours.
client() {
    local prefix=$1 status=0
    shift
    python3 "$HERE/../$@" >client.txt 2>&1 || status=$?
    lines "$prefix" <client.txt
    equal "${prefix}the client comes to its end" $status 0
}
# lines [PREFIX] < what another program printed: its checks are ours.
lines() {
    while read -r line; do
        case $line in "ok - "*) ok "${1:-}${line#ok - }" ;; "not ok - "*) not_ok "${1:-}${line#not ok - }" ;; *) echo "    $line" ;; esac
    done
}
# seed: RANDOM from LOCKSTEP_TEST_SEED, else from a new one. Printed; a script that fails prints the line that repeats it.
SEEDED=
seed() {
    RANDOM=$((${LOCKSTEP_TEST_SEED:=$((RANDOM * 32768 + RANDOM))} & 32767))
    SEEDED=$LOCKSTEP_TEST_SEED
    echo "# LOCKSTEP_TEST_SEED=$SEEDED"
}
repeat_line() { # exit status
    local name target
    [ "$1" -ne 0 ] && [ -n "$SEEDED" ] || return
    name=$(basename "$0" .sh)
    case $name in *_test) target="e2e ONLY=${name%_test}" ;; *) target=test-${name%_all} ;; esac
    echo "repeat: LOCKSTEP_TEST_SEED=$SEEDED make $target"
}

# check NAME COMMAND...: exits 0.
check() {
    local name=$1 status=0
    shift
    "$@" >"$WORK/.out" 2>"$WORK/.err" || status=$?
    if [ $status -eq 0 ]; then ok "$name"; else not_ok "$name" "exit $status: $*" "$(tail -n 20 "$WORK/.err" "$WORK/.out")"; fi
}
# fails NAME STATUS PATTERN... -- COMMAND...: that exit status, and a message that matches every extended regular expression.
fails() {
    local name=$1 want=$2 status=0 missing="" patterns=()
    shift 2
    while [ "$1" != -- ]; do patterns+=("$1") && shift; done
    shift
    "$@" >"$WORK/.out" 2>"$WORK/.err" </dev/null || status=$?
    for p in "${patterns[@]}"; do grep -Eq -- "$p" "$WORK/.err" || missing="$missing [$p]"; done
    if [ $status -eq "$want" ] && [ -z "$missing" ]; then ok "$name"
    else not_ok "$name" "exit $status (want $want): $*" "missing in the message:${missing:- nothing}" "$(tail -n 20 "$WORK/.err")"; fi
}
# said NAME PATTERN: the last command of check or fails printed that.
said() { if grep -Eq -- "$2" "$WORK/.out"; then ok "$1"; else not_ok "$1" "missing: $2" "$(head -n 20 "$WORK/.out")"; fi; }
equal() { if [ "$2" = "$3" ] && [ -n "$2" ]; then ok "$1"; else not_ok "$1" "got:  $2" "want: $3"; fi; }
differ() { if [ "$2" != "$3" ] && [ -n "$2" ] && [ -n "$3" ]; then ok "$1"; else not_ok "$1" "both: $2"; fi; }
quiet() { "$@" >"$WORK/.out" 2>"$WORK/.err" || { echo "failed: $*" >&2; tail -n 20 "$WORK/.err" >&2; return 1; }; }

# field KEY < the JSON of `runs show`: its first value, as text
field() { sed -n "s/^ *\"$1\": \"\{0,1\}\([^\",]*\)\"\{0,1\},\{0,1\}\$/\1/p" | head -n 1; }
run_field() { "$LOCKSTEP" runs show "$1" --json 2>/dev/null | field "$2"; }
# All that must agree between two runs of one identity.
result() { "$LOCKSTEP" runs show "$1" --json | grep -E '^  "(identity|step|train_loss|eval_loss|weights_root|state_root|dataset_root)"'; }
# The rows of a run without what is allowed to differ.
ledger() { "$LOCKSTEP" runs log "$1" --json | sed 's/,"seconds.*//'; }
isas() { "$LOCKSTEP" doctor --json | sed -n '/"isas"/,/\]/s/^ *"\([a-z0-9]*\)",\{0,1\}$/\1/p'; }

# waits until a run has got to a step, or is over: wait_step RUN STEP PID
wait_step() {
    local s
    while kill -0 "$3" 2>/dev/null; do
        s=$(run_field "$1" step)
        [ -n "$s" ] && [ "$s" -ge "$2" ] && return 0
        sleep 0.05
    done
    return 1
}
# flip FILE [BYTE]: changes one bit, by default in the middle
flip() {
    local at=${2:-$(($(stat -c %s "$1") / 2))} byte
    chmod u+w "$1"
    byte=$(od -An -tu1 -j"$at" -N1 "$1")
    printf "\\$(printf %o $((byte ^ 4)))" | dd of="$1" bs=1 seek="$at" conv=notrunc status=none
}
blob() { echo "$LOCKSTEP_STORE/blobs/${1:0:2}/${1:2}"; }

# --- a server ----------------------------------------------------------------------------------------------------------------
# a run `talk` that has learned a few conversations, context 256, and may be asked in the template chatml
talking_model() { # context of the model; marks that are tokens and not special
    local i tokens="" id=300 context=${1:-256}
    for i in $(seq 60); do echo "in the beginning was day $i, and it was good."; done >text.txt
    quiet "$LOCKSTEP" tokenizer train text.txt --vocab 280 --name plain
    quiet "$LOCKSTEP" tokenizer export plain plain.json
    for i in im_start im_end; do tokens="$tokens,{\"id\": $id, \"content\": \"<|$i|>\", \"special\": true}" id=$((id + 1)); done
    for i in ${2-}; do tokens="$tokens,{\"id\": $id, \"content\": \"$i\", \"special\": false}" id=$((id + 1)); done
    sed "s#^  \],\$#$tokens],#" plain.json >chat.json
    quiet "$LOCKSTEP" tokenizer import chat.json --name chat
    for i in $(seq 20); do
        echo "{\"messages\": [{\"role\": \"user\", \"content\": \"day $i?\"}, {\"role\": \"assistant\", \"content\": \"it was good.\"}]}"
    done >talk.jsonl
    quiet "$LOCKSTEP" dataset build talk talk.jsonl --tokenizer chat --template chatml --holdout 0
    config c.ini run.name=talk data.dataset=talk run.steps=2 model.context=$context batch.context=32 batch.sequences=1 batch.grains=1 eval.every=0 \
        checkpoint.every=1 eval.sequences=0
    check "a model" "$LOCKSTEP" train c.ini
}
# serve NAME OPTION...: in the background as $server, at $URL
serve() {
    local name=$1 i
    shift
    "$LOCKSTEP" serve "$@" --listen 127.0.0.1:0 >"$name.log" 2>"$name.err" &
    server=$!
    for i in $(seq 200); do
        URL=$(sed -n 's|^ready  \(http.*\)/v1$|\1|p' "$name.log")
        [ -z "$URL" ] || return 0
        kill -0 $server 2>/dev/null || return 1
        sleep 0.05
    done
    return 1
}

# --- several ranks ---------------------------------------------------------------------------------------------------------
have_ranks() { command -v mpirun >/dev/null && [ -e "$(dirname "$LOCKSTEP")/lockstep-mpi.so" ]; }
# mpirun by hand; what --on local:N does by itself is set here
mpi() {
    OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1 OMPI_MCA_btl_vader_single_copy_mechanism=none \
        mpirun --quiet --oversubscribe --bind-to none "$@"
}
# job NAME COMMAND...: in the background, as $pid; its output is in NAME.out and NAME.err. All its processes bear a mark.
job() {
    E2E_JOB=$WORK:$1 "${@:2}" >"$1.out" 2>"$1.err" </dev/null &
    pid=$!
}
job_processes() { grep -lsz "^E2E_JOB=$WORK:$1\$" /proc/[0-9]*/environ | cut -d/ -f3; }
# job_rank NAME RANK: the process of that rank
job_rank() {
    local p
    for p in $(job_processes "$1"); do
        grep -qsz "^OMPI_COMM_WORLD_RANK=$2\$" "/proc/$p/environ" && [ "$(readlink "/proc/$p/exe")" = "$LOCKSTEP" ] && echo "$p"
    done | head -n 1
}
now_ms() { echo $(($(date +%s%N) / 1000000)); }
# job_ends NAME MILLISECONDS: waits for $pid and for all processes of the job; $status is the command's, $took the time. Fails
# (and ends them) when some are left.
job_ends() {
    local began left
    began=$(now_ms)
    while left=$(job_processes "$1") && [ -n "$left" ] && [ $(($(now_ms) - began)) -lt "$2" ]; do sleep 0.05; done
    took=$(($(now_ms) - began))
    [ -z "$left" ] || kill -9 $left 2>/dev/null
    wait "$pid" 2>/dev/null
    status=$?
    [ -z "$left" ]
}

# text BYTES SEED: the same words on every machine (a linear congruential generator within doubles' integers)
text() {
    awk -v size="$1" -v seed="$2" 'BEGIN {
        m = split("ab ed ing er tion ous ly ment al ic wa zu ko fra sti nd ove ight ple qua mi ton he re un", s, " ")
        n = split("the of and to in that he shall unto for I his a they be is him not them it with all thou was which my me said but thy " \
                  "as ye have will from this are when your had upon naïve straße élan 日本 1,024 42 don'"'"'t we'"'"'ll — …", w, " ")
        while (length(out) < size) {
            words = 0
            do {
                seed = (seed * 16807) % 2147483647
                r = seed % (n * (n + 1) / 2)
                for (i = n; r >= i; i--) r -= i
                out = out (words ? " " : "") w[n + 1 - i]
                for (seed = (seed * 16807) % 2147483647; seed % 3 == 0; seed = (seed * 16807) % 2147483647) out = out s[1 + int(seed / 3) % m]
                seed = (seed * 16807) % 2147483647
            } while (words++ < 3 || seed % 9)
            out = out (seed % 5 ? ".\n" : "?\n\n")
        }
        printf "%s", out
    }'
}
# What most scripts train on: tokenizer "t" of 700 tokens and dataset "d" from text.txt.
standard_data() {
    text 60000 1 >text.txt
    quiet "$LOCKSTEP" tokenizer train text.txt --vocab 700 --name t || exit 1
    quiet "$LOCKSTEP" dataset build d text.txt --tokenizer t --holdout 0.05 || exit 1
}
# config FILE [section.key=value]...: a small llama with odd shapes, as an INI file
config() {
    local file=$1
    shift
    {
        printf '%s\n' run.steps=8 data.dataset=d model.layers=2 model.width=84 model.heads=7 model.ffn=100 model.context=65 \
            batch.sequences=12 batch.grains=6 eval.every=4 eval.sequences=3 checkpoint.every=3
        [ $# -eq 0 ] || printf '%s\n' "$@"
    } | awk -F. '{ section = $1; sub(/^[^.]*\./, ""); split($0, kv, "="); key = section "." kv[1]
                   if (!(section in seen)) { seen[section] = 1; sections[++n] = section }
                   value[key] = $0 }
        END { for (i = 1; i <= n; i++) { print "[" sections[i] "]"
                  for (k in value) if (index(k, sections[i] ".") == 1) print value[k] } }' >"$file"
}
