#!/bin/bash
# Several ranks through the real mpirun: the same root and ledger as one process, whatever happens to a rank on the way. A small
# part of all cases; `make test-ranks` (ranks_all.sh) runs the rest.
. "$(dirname "$0")/lib.sh"

if ! have_ranks; then
    ok "several ranks: skipped, this build has no MPI part or there is no mpirun"
    finish
fi
seed
standard_data
text 9000 2 | awk 'NR % 3 == 1 { gsub(/["\\]/, ""); p = $0 } NR % 3 == 2 { gsub(/["\\]/, ""); printf "{\"prompt\": \"%s\", \"response\": \" %s\"}\n", p, $0 }' >pairs.jsonl
quiet "$LOCKSTEP" dataset build pairs pairs.jsonl --tokenizer t --holdout 0.2 --holdout-by tail || exit 1

# train COMMAND... CONFIG [keys]...: prints what must agree, with the ledger's sum
train() {
    local id
    id=$(mktemp -u r.XXXXXX)
    "$@" run.name=$id >$id.out 2>&1 || { tail -n 3 $id.out; return 1; }
    result $id
    ledger $id | cksum
}
on() { echo "$LOCKSTEP train --on local:$1"; }
messages="env LOCKSTEP_SHARED_MEMORY=no"
# one_line NAME PATTERN: the last command's message is one line that matches; nobody else, mpirun included, says anything
one_line() { # but for what libevent, inside mpirun, now and then says of a rank that has gone
    local said
    said=$(grep -Ev '^(model|batch|memory|step|resumed|warning|\[warn\] Epoll)' "$WORK/.err")
    if [ "$(wc -l <<<"$said")" = 1 ] && grep -Eq -- "$2" <<<"$said"; then ok "$1"; else not_ok "$1" "want once and alone: $2" "$said"; fi
}

# --- one root -------------------------------------------------------------------------------------------------------------
config llama.ini model.vocab=1021 model.tied=false
config gpt2.ini model.family=gpt2 model.heads=12 model.ffn=85 model.vocab=1021 batch.grains=12
config pairs.ini data.dataset=pairs batch.sequences=7 batch.grains=7 model.layers=1 optimizer.schedule=linear optimizer.warmup=3
for c in llama gpt2 pairs; do
    want=$(train "$LOCKSTEP" train $c.ini)
    if ! grep -q weights_root <<<"$want"; then not_ok "$c trains" "$want"; continue; fi
    case $c in
        llama)
            equal "$c: --on local:1" "$(train $(on 1) $c.ini)" "$want"
            equal "$c: two ranks" "$(train $(on 2) $c.ini)" "$want"
            equal "$c: three ranks of two threads" "$(train $(on 3) --threads 2 $c.ini)" "$want"
            equal "$c: two ranks by messages" "$(train $messages $(on 2) $c.ini)" "$want"
            equal "$c: mpirun by hand" "$(train mpi -n 2 "$LOCKSTEP" train $c.ini)" "$want"
            differ "$c: another seed, another result" "$(train $(on 2) $c.ini run.seed=2)" "$want"
            ;;
        gpt2)
            equal "$c: three ranks" "$(train $(on 3) $c.ini checkpoint.every=1)" "$want"
            equal "$c: three ranks by messages" "$(train $messages $(on 3) $c.ini memory.micro_batch=1)" "$want"
            ;;
        pairs)
            equal "$c: two ranks, three grains and four" "$(train $(on 2) $c.ini memory.recompute=true)" "$want"
            empty="batch.sequences=2 batch.grains=2 batch.context=8 eval.every=0"
            quiet "$LOCKSTEP" train $c.ini $empty run.name=untargeted
            check "$c: steps without targets" grep -q '"tokens":0' <(ledger untargeted)
            equal "$c: the same by two ranks" "$(train $(on 2) $c.ini $empty)" "$(result untargeted; ledger untargeted | cksum)"
            equal "$c: as many ranks as grains" "$(train $(on 7) $c.ini eval.every=8)" "$(train "$LOCKSTEP" train $c.ini eval.every=8)"
            ;;
    esac
    [ $c = llama ] || continue
    mixed=()
    for isa in $(isas | sort -R --random-source=<(yes)); do mixed+=(: -n 1 env LOCKSTEP_ISA=$isa "$LOCKSTEP" train $c.ini run.steps=3 run.name=mixed); done
    check "ranks of $(isas | xargs) in one job" mpi "${mixed[@]:1}"
    equal "have one result" "$(result mixed; ledger mixed | cksum)" "$(train "$LOCKSTEP" train $c.ini run.steps=3)"
done

# --- killed, stopped ------------------------------------------------------------------------------------------------------
config c.ini run.steps=150 eval.every=50 checkpoint.every=2 eval.sequences=2
want=$(train "$LOCKSTEP" train c.ini)
# same NAME: the run has ended with the result of the single process
same() { equal "$1: the same result and ledger" "$(result "$1"; ledger "$1" | cksum)" "$want"; }
# begun NAME RANKS [keys]: trains in the background until a random step
begun() {
    job "$1" "$LOCKSTEP" train --on "local:$2" c.ini "run.name=$1" "${@:3}"
    wait_step "$1" $((RANDOM % 30 + 1)) "$pid" || not_ok "$1 runs" "$(cat "$1.err")"
}
for victim in 1 0; do
    name=kill$victim
    begun $name 3
    process=$(job_rank $name $victim)
    kill -9 "$process"
    if job_ends $name 5000; then ok "rank $victim killed: nobody is left after 5 s"; else not_ok "rank $victim killed: nobody is left after 5 s"; fi
    echo "# ended after $took ms"
    equal "rank $victim killed: exit status" $status 1
    cp $name.err .err
    one_line "rank $victim killed: it is named" "^lockstep: rank $victim \(process $process\) was killed by signal 9.*train --resume $name --on local:N"
    equal "rank $victim killed: the run is shown as killed" "$(run_field $name state)" killed
    if [ $victim = 1 ]; then check "rank 1 killed: resumed by two ranks" "$LOCKSTEP" train --resume $name --on local:2
    else check "rank 0 killed: resumed without ranks" "$LOCKSTEP" train --resume $name; fi
    same $name
done
check "one process verifies what three ranks and two have made" "$LOCKSTEP" verify kill1 --sample 3
TMPDIR=$WORK begun launcher 2 # its folder stays
kill -9 $pid
if job_ends launcher 5000; then ok "the launcher killed: nobody is left after 5 s"; else not_ok "the launcher killed: nobody is left after 5 s"; fi
echo "# ended after $took ms"
check "the launcher killed: resumed by three ranks, by messages" $messages "$LOCKSTEP" train --resume launcher --on local:3
same launcher

begun interrupted 2
fails "a second resume of a running job is refused" 1 -- "$LOCKSTEP" train --resume interrupted
one_line "by one line" "run interrupted is being trained by process"
kill -INT $pid
job_ends interrupted 10000
equal "Ctrl-C: exit status" $status 1
cp interrupted.err .err
one_line "Ctrl-C: says how to go on" "stopped after step [0-9]*; go on with .lockstep train --resume interrupted"
equal "Ctrl-C: saved" "$(run_field interrupted state) $(run_field interrupted step)" "stopped $(sed -n 's/.*stopped after step \([0-9]*\).*/\1/p' interrupted.err)"

damaged=$(run_field interrupted weights_root)
flip "$(blob "$damaged")"
check "a damaged newest checkpoint: two ranks take the one before" "$LOCKSTEP" train --resume interrupted --on local:2
equal "and name it once" "$(grep -c ^warning .err) $(grep -E "^warning: checkpoint of step [0-9]+ can't be used: .*${damaged:2:8}.*going back" .err)" "1 $(grep -m 1 ^warning .err)"
same interrupted

# --- what goes wrong is said once -----------------------------------------------------------------------------------------
none() { equal "$1: nothing is created" "$("$LOCKSTEP" runs list --json | grep -c '"none"')" 0; }
fails "more ranks than grains" 1 -- "$LOCKSTEP" train c.ini run.name=none --on local:7
one_line "says so once" "7 ranks cannot share 6 grains: .*at most 6"
none "more ranks than grains"
for on in local: local:0 local:-1 local:x local:2x local:1025 local:99999999999999999999 remote:2 2 ""; do
    fails "--on '$on'" 2 "local:N, N ranks on this machine" -- "$LOCKSTEP" train c.ini run.name=none --on "$on"
done
fails "--on under mpirun" 2 "give it without mpirun" -- mpi -n 1 "$LOCKSTEP" train c.ini run.name=none --on local:2
while read -r wrong what; do
    fails "$wrong with --on" 1 -- "$LOCKSTEP" train c.ini run.name=none --on local:2 "$wrong"
    one_line "is said once" "^lockstep: .*$what"
done <<'END'
run.steps=nine "nine" is not a number
optimizer.no=1 unknown key "optimizer.no"
model.heads=5 heads = 5 must divide
data.dataset=nothing no dataset named "nothing"
END
fails "a name that is taken" 1 -- "$LOCKSTEP" train c.ini run.name=kill1 --on local:2
one_line "is said once" "run kill1 exists already"
fails "output that cannot be written" 1 "cannot write to standard output" -- sh -c '"$LOCKSTEP" train c.ini run.name=full run.steps=1 optimizer.warmup=0 eval.every=0 --on local:2 >/dev/full'
fails "output of a dry run that cannot be written" 1 "cannot write to standard output" -- sh -c '"$LOCKSTEP" train c.ini run.name=full2 --dry-run --on local:2 >/dev/full'
"$LOCKSTEP" train c.ini run.name=piped run.steps=100000 checkpoint.every=0 --on local:2 2>&1 | head -n 4 >/dev/null
equal "a reader that goes away stops the ranks" "$(run_field piped state)" stopped
differ "and what they did is saved" "$(run_field piped step)" 0
fails "a run that is not there" 1 -- "$LOCKSTEP" train --resume none --on local:2
one_line "is said once" 'no run named "none"'
fails "no mpirun" 1 -- env PATH=/nonexistent "$LOCKSTEP" train c.ini run.name=none --on local:2
one_line "names the package" "need mpirun.*install openmpi-bin"
fails "a wrong LOCKSTEP_MPI" 1 -- env LOCKSTEP_MPI=/nonexistent "$LOCKSTEP" train c.ini run.name=none --on local:2
one_line "names the file" "LOCKSTEP_MPI names /nonexistent"
mkdir -p a/b/c/d && cp "$LOCKSTEP" a/b/c/d/
fails "no MPI part" 1 -- a/b/c/d/lockstep train c.ini run.name=none --on local:2
one_line "names the file, where it was looked for, and the packages" "no MPI part.*lockstep-mpi.so lies neither in $WORK/a/b/c/d .*install libopenmpi-dev and openmpi-bin"
none "whatever was wrong"

moments() { check "--dry-run $*" "$LOCKSTEP" train c.ini --dry-run --json "$@" && moments=$(field moments_bytes <.out); }
moments
single=$moments
moments --on local:2
said "says how many ranks" '"ranks": 2'
equal "two ranks have half of the moments each" $((100 * moments / single / 10)) 4 # 40 to 49 %: what is kept unpadded

huge="run.steps=30 optimizer.warmup=1 optimizer.clip=0 optimizer.learning_rate=1000 eval.every=0"
fails "gradients that are not finite" 1 -- "$LOCKSTEP" train c.ini run.name=nan1 $huge
alone=$(grep "is not finite" .err | sed s,nan1@,nan2@,g)
fails "on two ranks as well" 1 -- "$LOCKSTEP" train c.ini run.name=nan2 $huge --on local:2
one_line "said once" "is not finite"
equal "with the same words" "$(grep "is not finite" .err)" "$alone"
equal "the run is failed" "$(run_field nan2 state) $(run_field nan2 step)" "failed $(run_field nan1 step)"

# --- no room --------------------------------------------------------------------------------------------------------------
# The limit is above what MPI keeps in files (4 MB a rank) and below the weights; it holds for shared memory too, hence messages.
wide="model.vocab=20000 run.steps=4 eval.every=0 checkpoint.every=2"
quiet "$LOCKSTEP" train c.ini run.name=wide $wide
limited() { (ulimit -f "$1" && shift && exec "$@"); }
fails "a file size limit" 1 -- limited 5000 $messages "$LOCKSTEP" train c.ini run.name=limited $wide --on local:2
one_line "said once" "checkpoint could not be written.*File too large"
equal "the run is failed" "$(run_field limited state)" failed
check "and goes on when there is room" "$LOCKSTEP" train --resume limited --on local:3
fails "less than Open MPI needs" 1 "a file may have at most 1000 KiB \(ulimit -f\)" -- limited 1000 "$LOCKSTEP" train c.ini run.name=small $wide --on local:2
equal "to the same result" "$(result limited)" "$(result wide)"
mkdir disk
if [ "$(id -u)" = 0 ] && mount -t tmpfs -o size=14m none disk 2>/dev/null; then
    MOUNTED=$WORK/disk
    quiet "$LOCKSTEP" tokenizer train text.txt --vocab 700 --name t --store disk/store
    quiet "$LOCKSTEP" dataset build d text.txt --tokenizer t --holdout 0.05 --store disk/store
    quiet "$LOCKSTEP" train c.ini run.name=before run.steps=1 --store disk/store
    head -c 20M /dev/zero >disk/filler 2>/dev/null
    fails "a full disk" 1 -- "$LOCKSTEP" train c.ini run.name=full run.steps=20 --store disk/store --on local:2
    one_line "said once" "No space left"
    rm disk/filler
    equal "no unfinished files stay" "$(find disk/store/blobs/tmp -type f 2>/dev/null | wc -l)" 0
    check "when there is room again, the run goes on" "$LOCKSTEP" train --resume full --store disk/store --on local:2
    quiet "$LOCKSTEP" train c.ini run.name=empty run.steps=20
    equal "to the same result" "$(LOCKSTEP_STORE=$WORK/disk/store result full)" "$(result empty)"
else echo "# no tmpfs may be mounted here: a full disk is tested by a file size limit only"; fi
equal "none of all these has left a process" "$(for name in kill0 kill1 launcher interrupted; do job_processes $name; done | wc -l)" 0
finish
