#!/bin/bash
# The main job on real text: tokenizer, dataset, training that is killed and goes on, verification, evaluation, a sample.
# usage: tools/demo.sh LOCKSTEP [TEXT]      everything is kept in ./demo.d
# DEMO_STORE=URL and DEMO_BLOBS=URL name another store, which must have no run and no dataset of the demo's yet; nothing is deleted there.
set -euo pipefail
lockstep=$(realpath "$1")
text=${2:-}
here=$(dirname "$(realpath "$0")")
config=$here/../examples/demo.ini
readme=$here/../README.md
bible_sha256=82fa5f3788c6a9a010fb128a0f0bf588984b5888a82058520620eded59b033ea
began=$SECONDS
kill_at=${DEMO_KILL_AT:-40} # percent of the steps
prompt="In the beginning"

say() { printf '\n== %s\n' "$*"; }
die() { printf 'demo: %s\n' "$*" >&2; exit 1; }

export LOCKSTEP_STORE=${DEMO_STORE:-demo.d/store} LOCKSTEP_BLOBS=${DEMO_BLOBS:-}
if [ -n "${DEMO_STORE:-}" ]; then
    for there in "runs show demo" "runs show demo-one" "runs show demo-two" "dataset show demo" "tokenizer show demo"; do
        ! "$lockstep" $there >/dev/null 2>&1 || die "the store has what an earlier demo made (lockstep $there): name an empty place, as another ?schema= and prefix"
    done
fi
rm -rf demo.d
mkdir demo.d

say "The text"
if [ -n "$text" ]; then
    [ -r "$text" ] || die "cannot read $text"
    cp "$text" demo.d/text.txt
    prompt=""
else
    command -v bible >/dev/null || die "the program 'bible' (Debian package bible-kjv) is missing; or give a text of your own: make demo TEXT=file"
    bible gen1:1-rev22:21 >demo.d/text.txt
    echo "$bible_sha256  demo.d/text.txt" | sha256sum --quiet -c - || die "the King James Bible of this machine is another text than expected"
fi
echo "$(wc -c <demo.d/text.txt) bytes, SHA-256 $(sha256sum demo.d/text.txt | cut -c1-64)"

say "A tokenizer learned from it, and a dataset"
vocab=$(sed -n 's/^; *tokenizer: *\([0-9]*\).*/\1/p' "$config")
"$lockstep" tokenizer train demo.d/text.txt --vocab "$vocab" --name demo
"$lockstep" dataset build demo demo.d/text.txt --tokenizer demo

say "Training; it will be killed in the middle"
steps=$(sed -n 's/^steps *= *\([0-9]*\).*/\1/p' "$config")
"$lockstep" train "$config" >/dev/null & # (its progress is on standard error)
pid=$!
trap 'kill -9 $pid 2>/dev/null || true' EXIT
while kill -0 $pid 2>/dev/null; do
    sleep 0.5
    step=$("$lockstep" runs log demo --json 2>/dev/null | tail -n 1 | sed 's/.*"step":\([0-9]*\).*/\1/' || true)
    [ "${step:-0}" -ge $((steps * kill_at / 100)) ] && break
done
{ kill -9 $pid && ! wait $pid; } 2>/dev/null || die "training ended before it could be killed" # (the shell would report it)
trap - EXIT
echo "killed with SIGKILL after step $step"

say "Going on from the last checkpoint"
"$lockstep" train --resume demo

say "A random segment executed again"
"$lockstep" verify demo --sample 1

say "Held-out text: the last 1%"
"$lockstep" eval demo
xz=$(command -v xz >/dev/null && xz -9 -c demo.d/text.txt | wc -c || echo 0)
[ "$xz" = 0 ] || awk -v a="$xz" -v b="$(wc -c <demo.d/text.txt)" 'BEGIN { printf "for comparison, xz -9 on the whole text: %.4f bits a byte\n", 8 * a / b }'

say "A sample"
"$lockstep" generate demo "$prompt" --tokens 160 --seed 1
"$lockstep" runs plot demo --out demo.d/loss.svg >/dev/null
echo "the loss curve: demo.d/loss.svg"

say "The same text from a server, asked as OpenAI's is"
status=0
"$lockstep" serve demo --listen 127.0.0.1:0 >demo.d/serve.log 2>&1 &
pid=$!
trap 'kill -9 $pid 2>/dev/null || true' EXIT
url=
for _ in $(seq 100); do
    url=$(sed -n 's|^ready  \(http.*\)|\1|p' demo.d/serve.log)
    { [ -n "$url" ] || ! kill -0 $pid 2>/dev/null; } && break
    sleep 0.1
done
if [ -n "$url" ] && command -v curl >/dev/null; then
    body="{\"prompt\": \"$prompt\", \"max_tokens\": 40, \"temperature\": 0.8, \"top_p\": 0.95, \"seed\": 1, \"lockstep\": {\"receipt\": true}}"
    echo "curl $url/completions -d '$body'"
    curl -s "$url/completions" -d "$body" >demo.d/answer.json || true
    served=$(sed 's/.*"tokens":\[\([0-9,]*\)\].*/\1/' demo.d/answer.json)
    alone=$("$lockstep" generate demo "$prompt" --tokens 40 --seed 1 --json | tr -d ' \n' | sed 's/.*"ids":\[\([0-9,]*\)\].*/\1/')
    echo "generate's tokens   $alone"
    echo "the server's        $served"
    if [ -n "$served" ] && [ "$served" = "$alone" ]; then echo "equal"; else
        echo "NOT EQUAL"
        status=1
    fi
    "$lockstep" response verify demo.d/answer.json || status=1
elif [ -n "$url" ]; then echo "left out: there is no curl"; else
    tail -n 1 demo.d/serve.log # a build without a server says so
fi
kill $pid 2>/dev/null || true
wait $pid 2>/dev/null || true
trap - EXIT

say "The weights' root"
root=$("$lockstep" runs show demo --json | sed -n 's/.*"weights_root": "\([0-9a-f]*\)".*/\1/p')
expected=$(sed -n 's/.*`\([0-9a-f]\{64\}\)`.*demo root.*/\1/p' "$readme" 2>/dev/null | head -n 1 || true)
echo "this machine  $root"
if [ -z "$text" ]; then
    echo "README        ${expected:-none}"
    if [ "$root" = "$expected" ]; then echo "equal"; else
        echo "NOT EQUAL"
        status=1
    fi
fi

say "Two ranks: 20 steps by one process, and by two that share the work"
# trained NAME [options]: trains as NAME, prints the weights' root; the progress goes to demo.d/NAME.log
trained() {
    "$lockstep" train "$config" run.name="$1" run.steps=20 optimizer.warmup=5 eval.every=0 checkpoint.every=0 "${@:2}" >"demo.d/$1.log" 2>&1 || return 1
    "$lockstep" runs show "$1" --json | sed -n 's/.*"weights_root": "\([0-9a-f]*\)".*/\1/p'
}
one=$(trained demo-one) || die "$(tail -n 1 demo.d/demo-one.log)"
if two=$(trained demo-two --on local:2); then
    echo "one process   $one"
    echo "two ranks     $two"
    if [ "$one" = "$two" ]; then echo "equal"; else
        echo "NOT EQUAL"
        status=1
    fi
elif grep -q "install .*openmpi" demo.d/demo-two.log; then echo "left out: $(tail -n 1 demo.d/demo-two.log)"; else
    tail -n 3 demo.d/demo-two.log
    status=1
fi
echo
echo "the demo took $((SECONDS - began)) s"
exit $status
