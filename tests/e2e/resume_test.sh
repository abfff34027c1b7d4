#!/bin/bash
# Killed, stopped, resumed with other threads and kernels: the same bits as straight through.
. "$(dirname "$0")/lib.sh"

seed
standard_data
ISAS=($(isas))
FAST=("${ISAS[@]}")
[ ${#FAST[@]} -gt 2 ] && FAST=("${ISAS[@]::${#ISAS[@]}-2}") # the last two, blocked and ref, are plain C and slow
config c.ini run.steps=60 eval.every=20 checkpoint.every=1
quiet "$LOCKSTEP" train c.ini run.name=straight || finish
want=$(result straight)
ledger straight >straight.log

resume() { LOCKSTEP_ISA=${FAST[RANDOM % ${#FAST[@]}]} "$LOCKSTEP" train --resume "$1" --threads $((RANDOM % 4 + 1)) 2>"$1.err" >/dev/null; }

# 1. Random kills. A checkpoint is being written most of the time.
kills=0
for name in kill1 kill2 kill3; do
    "$LOCKSTEP" train c.ini run.name=$name checkpoint.every=$((RANDOM % 2 * 6 + 1)) >/dev/null 2>&1 &
    pid=$!
    wait_step $name 0 $pid
    for k in 1 2 3 4; do
        sleep 0.$((RANDOM % 50 + 10))
        kill -9 $pid 2>/dev/null && kills=$((kills + 1))
        wait $pid 2>/dev/null
        LOCKSTEP_ISA=${FAST[RANDOM % ${#FAST[@]}]} "$LOCKSTEP" train --resume $name --threads $((RANDOM % 4 + 1)) >/dev/null 2>$name.err &
        pid=$!
    done
    wait $pid
    status=$?
    [ $status -eq 0 ] || grep -q "is finished" $name.err || not_ok "$name resumes" "exit $status" "$(cat $name.err)"
    equal "$name: killed four times, the same result" "$(result $name)" "$want"
    equal "$name: the same ledger" "$(ledger $name | cksum)" "$(cksum <straight.log)"
done
echo "# $kills kills"
check "verify after kills" "$LOCKSTEP" verify kill1
check "verify from the seed" "$LOCKSTEP" verify kill2 --segment 0..9
check "verify any part, with few threads and other kernels" env LOCKSTEP_ISA="${ISAS[-1]}" "$LOCKSTEP" verify kill3 --segment 58..60 --threads 1

# 2. Signals save and leave.
for signal in INT TERM; do
    "$LOCKSTEP" train c.ini run.name=sig$signal checkpoint.every=0 run.steps=100000 >/dev/null 2>sig.err &
    pid=$!
    wait_step sig$signal 0 $pid
    fails "$signal: a second resume of a living run is refused" 1 "run sig$signal is being trained by process $pid" -- "$LOCKSTEP" train --resume sig$signal
    fails "$signal: so is removing it" 1 "process $pid" -- "$LOCKSTEP" runs rm sig$signal
    equal "$signal: it is shown as running" "$(run_field sig$signal state)" running
    sleep 0.3
    kill -$signal $pid
    wait $pid
    equal "$signal: exit status 1" $? 1
    check "$signal: says how to go on" grep -q "stopped after step [0-9]*; go on with .lockstep train --resume sig$signal" sig.err
    step=$(sed -n 's/.*stopped after step \([0-9]*\).*/\1/p' sig.err)
    equal "$signal: state" "$(run_field sig$signal state)" stopped
    equal "$signal: step saved" "$(run_field sig$signal step)" "$step"
    differ "$signal: something was done" "${step:-0}" 0
    check "$signal: verify what was done" "$LOCKSTEP" verify sig$signal
done
"$LOCKSTEP" train c.ini run.name=stopped checkpoint.every=0 >/dev/null 2>&1 &
pid=$!
wait_step stopped 0 $pid
sleep 0.2
kill -TERM $pid 2>/dev/null
wait $pid
resume stopped
equal "stopped by a signal and resumed, the same result" "$(result stopped)" "$want"

# A reader of the messages that goes away stops it like a signal: what was done is saved.
"$LOCKSTEP" train c.ini run.name=piped checkpoint.every=0 run.steps=100000 2>&1 | head -n 4 >/dev/null
equal "train 2>&1 | head: exit status 1" "${PIPESTATUS[0]}" 1
equal "train 2>&1 | head: state" "$(run_field piped state)" stopped
differ "train 2>&1 | head: its steps are saved" "$(run_field piped step)" 0
check "train 2>&1 | head: they verify" "$LOCKSTEP" verify piped
"$LOCKSTEP" train c.ini run.name=result 2>/dev/null | true
equal "train | true: trains to the end" "$(run_field result state)" finished

# 3. A dead run is accepted at once, a finished one not.
"$LOCKSTEP" train c.ini run.name=dead run.steps=2000 checkpoint.every=2 >/dev/null 2>&1 &
pid=$!
wait_step dead 4 $pid
kill -9 $pid
wait $pid 2>/dev/null
equal "a killed run is shown as killed" "$(run_field dead state)" killed
fails "its name is used, and it can go on" 1 "run dead exists already: go on with" "train --resume dead" "runs rm dead" -- "$LOCKSTEP" train c.ini run.name=dead
"$LOCKSTEP" train --resume dead >/dev/null 2>dead.err &
pid=$!
for _ in $(seq 100); do # a busy machine takes its time to start
    grep -Eq "resum.* [0-9]+" dead.err && break
    sleep 0.1
done
check "a dead run is resumed at once, from its checkpoint" grep -Eq "resum.* [0-9]+" dead.err
kill -INT $pid
wait $pid
fails "a finished run is not resumed" 1 "run straight is finished" "runs show straight" -- "$LOCKSTEP" train --resume straight
fails "a finished run's name is used once" 1 "run straight exists already and is finished: give this one another run.name" "runs rm straight" -- "$LOCKSTEP" train c.ini run.name=straight
equal "and nothing of it changed" "$(result straight)" "$want"
equal "with hardly any stack: the same bits" "$(ulimit -s 64 && "$LOCKSTEP" train c.ini run.name=stack >/dev/null 2>&1; result stack)" "$want"

# A batch of prompts only: the step makes no update, and a killed run goes on through such steps.
text 9000 2 | awk 'NR % 3 == 1 { gsub(/["\\]/, ""); p = $0 } NR % 3 == 2 { gsub(/["\\]/, ""); printf "{\"prompt\": \"%s\", \"response\": \" %s\"}\n", p p p, $0 }' >pairs.jsonl
quiet "$LOCKSTEP" dataset build pairs pairs.jsonl --tokenizer t --holdout 0.2 --holdout-by tail || finish
prompts="data.dataset=pairs run.steps=30 batch.sequences=2 batch.grains=2 batch.context=16 eval.every=10"
check "prompts that fill batches" "$LOCKSTEP" train c.ini $prompts run.name=prompts
equal "are counted beforehand, by the dry run too" "$("$LOCKSTEP" train c.ini $prompts run.name=dry --dry-run 2>&1 >/dev/null | grep -c 'training sequences of 16 positions all targets are masked, first in document')" 1
check "some steps had no targets" grep -q '"tokens":0' <("$LOCKSTEP" runs log prompts --json)
equal "and are shown as such" "$("$LOCKSTEP" runs log prompts --json | grep '"tokens":0' | grep -vc '"loss":null,"gradient_norm":null')" 0
"$LOCKSTEP" train c.ini $prompts run.name=prompts2 >/dev/null 2>&1 &
pid=$!
wait_step prompts2 7 $pid
kill -9 $pid 2>/dev/null
wait $pid 2>/dev/null
"$LOCKSTEP" train --resume prompts2 >/dev/null 2>&1
equal "killed among them: the same bits" "$(result prompts2)" "$(result prompts)"
check "verified" "$LOCKSTEP" verify prompts --segment 0..30
check "the best checkpoint is a model" "$LOCKSTEP" generate prompts@best the --tokens 4
check "and can be evaluated" "$LOCKSTEP" eval prompts@best

# 4. verify names the first step that differs, and training stops at it. tamper changes one bit of a row.
quiet "$LOCKSTEP" train c.ini run.name=honest run.steps=12 checkpoint.every=4 checkpoint.keep=0 || finish
check "verify of random segments" "$LOCKSTEP" verify honest --sample 3 --seed 5
check "verify of everything" "$LOCKSTEP" verify honest --segment 0..12
check "verify of more segments than there are" sh -c '"$LOCKSTEP" verify honest --sample 9 2>&1'
said "says how many there are" "^verify: 9 segments are asked for, and there are 3$"
said "and which seed repeats it" "^verify: --seed [0-9]+ chooses$"
fails "verify --seed of no sample" 2 "--seed goes with --sample" -- "$LOCKSTEP" verify honest --seed 5
quiet "$TOOLS/tamper" "$LOCKSTEP_STORE" honest 7
fails "verify names the first step that differs" 1 -- "$LOCKSTEP" verify honest --segment 0..12
said "which is the one that was changed" "DIFFERENT: step 7 of honest: loss"
check "segments before it are equal" "$LOCKSTEP" verify honest --segment 0..6
check "segments after it are equal" "$LOCKSTEP" verify honest --segment 8..12

"$LOCKSTEP" train c.ini run.name=wrong run.steps=2000 checkpoint.every=0 >/dev/null 2>&1 &
pid=$!
wait_step wrong 0 $pid
until "$LOCKSTEP" runs log wrong --from 2 --json | grep -q '"step":2,' || ! kill -0 $pid; do sleep 0.1; done
kill -9 $pid
wait $pid 2>/dev/null
quiet "$TOOLS/tamper" "$LOCKSTEP_STORE" wrong 2
fails "training stops at a step that differs from its row" 1 "run wrong is not deterministic: step 2 .*loss 0x.*, now 0x" "doctor" -- "$LOCKSTEP" train --resume wrong
equal "and the run is failed" "$(run_field wrong state)" failed
fails "verify beyond the end" 1 "segment 0..13 is not within" -- "$LOCKSTEP" verify honest --segment 0..13
check "which it does not say it executes" sh -c '! "$LOCKSTEP" verify honest --segment 0..13 2>&1 | grep -q "executes"'
check "verify of steps behind no checkpoint" sh -c '"$LOCKSTEP" verify honest --segment 3..4 2>&1'
said "says where it starts, and why" "executes steps [0-9]..4 of honest again: starts at step [0-9], the (checkpoint before|run's beginning)"
quiet "$LOCKSTEP" train c.ini run.name=keeps run.steps=6 optimizer.warmup=0 checkpoint.every=2 checkpoint.keep=1
check "verify where only the newest checkpoint is kept" sh -c '"$LOCKSTEP" verify keeps 2>&1'
said "says which segment, and why" "executes steps 0..2 of keeps again: the newest segment whose beginning is kept .*newest checkpoint is that of step 6"
check "verify of a segment whose beginning is not kept" sh -c '"$LOCKSTEP" verify keeps --segment 3..6 2>&1'
said "says that it starts at 0" "executes steps 0..6 of keeps again: starts at step 0, the run's beginning, as no checkpoint is kept before 3"
fails "verify of no segment" 2 "is not FROM..TO" -- "$LOCKSTEP" verify honest --segment 5
finish
