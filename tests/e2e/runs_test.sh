#!/bin/bash
# Runs beside each other: children (--from), list with filters and states, compare, pictures of several.
. "$(dirname "$0")/lib.sh"

standard_data
config c.ini optimizer.schedule=constant optimizer.warmup=0 checkpoint.every=4 checkpoint.keep=0
quiet "$LOCKSTEP" train c.ini run.name=whole || finish
show() { "$LOCKSTEP" runs show "$1" --json; }

# --- children --------------------------------------------------------------------------------------------------------------
check "a child of a checkpoint" "$LOCKSTEP" train --from whole@4 run.steps=4
check "its name" bash -c "'$LOCKSTEP' runs show whole-2 | grep -q '^state  *finished$'"
equal "four steps and four are eight" "$(run_field whole-2 weights_root)" "$(run_field whole weights_root)"
check "its parent is shown" bash -c "'$LOCKSTEP' runs show whole-2 | grep -q '^parent  *whole@4$'"
check "another rate" "$LOCKSTEP" train --from whole@4 run.steps=4 optimizer.learning_rate=2e-3 run.name=faster
differ "it changes the result" "$(run_field faster weights_root)" "$(run_field whole weights_root)"
check "anew with other layers" "$LOCKSTEP" train --from whole@0 model.layers=1 run.name=flat
check "a child's dry run" "$LOCKSTEP" train --from whole --dry-run --json
fails "stores nothing" 1 "whole-3" -- "$LOCKSTEP" runs show whole-3
if have_ranks; then
    check "a child as two ranks" "$LOCKSTEP" train --from whole@4 run.steps=4 --on local:2 --threads 1
    equal "the same bits" "$(run_field whole-3 weights_root)" "$(run_field whole weights_root)"
fi
rates() { "$LOCKSTEP" runs log "$1" | awk 'NR > 1 { print $4 }' | xargs; }
check "wsd: warmup, a constant rate, a fall" "$LOCKSTEP" train c.ini run.name=wsd optimizer.schedule=wsd optimizer.warmup=2 optimizer.cooldown=4
equal "its rates" "$(rates wsd)" "0.0005 0.001 0.001 0.001 0.001 0.000775 0.00055 0.000325"
check "a cooldown from a run's checkpoint" "$LOCKSTEP" train --from whole@4 run.name=cooled run.steps=4 optimizer.schedule=wsd optimizer.cooldown=4
equal "its rates too" "$(rates cooled)" "0.001 0.000775 0.00055 0.000325"
check "a child with another schedule leaves the cooldown" "$LOCKSTEP" train --from wsd run.name=straight run.steps=2 optimizer.schedule=constant
check "a longer child keeps a cooldown that was given" "$LOCKSTEP" train --from wsd run.name=onward run.steps=6
equal "four of six steps" "$(rates onward)" "0.0005 0.001 0.001 0.000775 0.00055 0.000325"
note() { "$LOCKSTEP" train --dry-run "$@" 2>&1 >/dev/null | grep '^note: '; }
equal "no key differs, from the beginning" "$(note --from whole@0 run.name=again run.steps=8)" "note: no key differs from those of run whole: again repeats it"
equal "no key differs, from a checkpoint" "$(note --from whole run.name=on)" "note: no key differs from those of run whole: on goes on from it for as many steps, by the same schedule"
equal "a key that differs needs no note" "$(note --from whole@0 run.steps=9 | wc -l)" 0
if have_ranks; then equal "several ranks say it once" "$(note --from whole --on local:2 --threads 1 | wc -l)" 1; fi
fails "keys beside --resume: the way is named" 2 "lockstep train --from whole run.steps=9" -- "$LOCKSTEP" train --resume whole run.steps=9
fails "a file beside --from" 2 "give section.key=value, not c.ini" -- "$LOCKSTEP" train --from whole c.ini
fails "--resume and --from" 2 "give one" -- "$LOCKSTEP" train --from whole --resume whole
fails "--from nobody" 1 "--from: .*nobody" -- "$LOCKSTEP" train --from nobody
fails "a key of [model]" 1 "on the command line: model.layers is given by the weights of --from whole" -- "$LOCKSTEP" train --from whole model.layers=3
fails "the old file with model.from: the way is named" 1 "c.ini:[0-9]*: model.* is given by model.from \(on the command line\)" "train --from whole key=value" -- "$LOCKSTEP" train c.ini model.from=whole run.name=x
fails "what is impossible together is said of --from" 1 "on the command line: batch.grains = 5 must divide" -- "$LOCKSTEP" train --from whole batch.grains=5
fails "another tool's key" 1 "on the command line: \"optimizer.lr\" is called optimizer.learning_rate here" -- "$LOCKSTEP" train c.ini optimizer.lr=1

# --- a loss that is no number ---------------------------------------------------------------------------------------------
"$LOCKSTEP" train c.ini run.name=bad run.steps=30 optimizer.clip=0 optimizer.learning_rate=1000 eval.every=0 checkpoint.every=1 >/dev/null 2>&1
quiet "$LOCKSTEP" eval bad
mv .err eval.err && mv .out eval.out
check "eval of a run that went wrong is no number" grep -q 'held-out loss -*nan' eval.out
check "why, and what to do" grep -Eq 'warning: bad: the loss is nan, although all weights are finite.*RUN@STEP' eval.err

# --- list ------------------------------------------------------------------------------------------------------------------
names() { "$LOCKSTEP" runs list "$@" --json | sed -n 's/^    "name": "\(.*\)",$/\1/p' | tr '\n' ' '; }
equal "by name" "$(names --name 'whole*' --sort name | cut -d' ' -f1-2)" "whole whole-2"
equal "a pattern" "$(names --name 'f*')" "faster flat "
equal "the newest first" "$(names --sort date --name '[wf][hal]*[et2r]' | awk '{ print $NF }')" whole
equal "no such dataset, no such state" "$(names --dataset other)$(names --status killed)." .
equal "a dataset and a state" "$(names --dataset d --status finished --name 'f*')" "faster flat "
check "the least loss first" bash -c "'$LOCKSTEP' runs list --sort loss --json | grep -A1 '\"held_out\": {' | sed -n 's/.*\"loss\": //p' | sort -cg"
check "a child stands below its parent" bash -c "'$LOCKSTEP' runs list | grep -A9 '^whole ' | grep -q '^└ whole-2  *finished  *4/4 .* d  '"
check "a list of nothing" "$LOCKSTEP" runs list --name nobody
equal "says so" "$(cat .err)" "no run matches"
fails "an unknown state" 2 "running, stopped, killed" -- "$LOCKSTEP" runs list --status dead

"$LOCKSTEP" train c.ini run.name=long run.steps=100000 checkpoint.every=0 eval.every=0 >/dev/null 2>&1 &
pid=$!
live() { show long 2>/dev/null | sed -n '/"live"/,$s/^    "'"$1"'": \([^,]*\),*$/\1/p' | head -n 1; }
for _ in $(seq 200); do
    s=$(live step) && [ "${s:-0}" -ge 2 ] && break
    sleep 0.1
done
check "the live step is ahead of the checkpoint's" [ "${s:-0}" -ge 2 ]
equal "which there is none of" "$(run_field long step)" 0
equal "its process is told" "$(live process)" $pid
check "the list has the live step" bash -c "'$LOCKSTEP' runs list --status running | grep -Eq '^long  *running  *[1-9][0-9]*/100000 '"
kill -9 $pid
wait $pid 2>/dev/null
check "a killed run is said to be so, at its step" bash -c "'$LOCKSTEP' runs list | grep -Eq '^long  *killed  *[1-9][0-9]*/100000 '"
equal "the list finds it" "$(names --status killed)" "long "
equal "it has no process" "$(live process)" null

# --- compare ---------------------------------------------------------------------------------------------------------------
quiet "$LOCKSTEP" train c.ini run.name=twin checkpoint.every=2 eval.every=8
check "compare" "$LOCKSTEP" runs compare whole twin
said "identity" "^identity: equal"
said "a key that decides no bit" "^checkpoint.every \*  *4  *2"
said "ledgers" "^ledgers are equal to the bit in 8 common steps"
check "compare --exit-status of equal runs" "$LOCKSTEP" runs compare whole twin --exit-status
check "compare different runs" "$LOCKSTEP" runs compare whole flat
said "a key" "^model.layers  *2  *1"
said "where they part" "^ledgers differ first at step 1, in loss; 8 common steps"
said "losses" "^1\.\.1  "
fails "compare --exit-status of different runs" 1 -- "$LOCKSTEP" runs compare whole flat --exit-status
check "compare --json" bash -c "'$LOCKSTEP' runs compare whole faster --json | '$TOOLS/json_check'"
fails "compare with nobody" 1 nobody -- "$LOCKSTEP" runs compare whole nobody
quiet "$TOOLS/tamper" "$LOCKSTEP_STORE" twin 7
fails "one changed bit" 1 -- "$LOCKSTEP" runs compare whole twin --exit-status
said "is found" "^ledgers differ first at step 7"

# --- pictures --------------------------------------------------------------------------------------------------------------
for by in step tokens seconds; do
    check "a picture by $by" "$LOCKSTEP" runs plot whole flat faster --by $by --out $by.svg
    equal "a line a run" "$(grep -c '<polyline ' $by.svg)" 3
done
check "its name by default" "$LOCKSTEP" runs plot whole flat
said "of the first" '^whole-and-1.svg$'
fails "a run that is not there" 1 nobody -- "$LOCKSTEP" runs plot whole nobody

# --- a run as a whole, and damage ------------------------------------------------------------------------------------------
fails "runs show of a step" 2 "whole@best: this takes a RUN as a whole, without @STEP: give whole" -- "$LOCKSTEP" runs show whole@best
quiet "$LOCKSTEP" train --from whole-2 run.name=same-start run.steps=1
quiet "$LOCKSTEP" train --from whole run.name=other-name run.steps=1
check "runs of one start by two names" "$LOCKSTEP" runs compare same-start other-name
check "model.from is no difference" bash -c '! grep -q "^model.from" .out'
quiet "$TOOLS/tamper" "$LOCKSTEP_STORE" flat width
check "a list with a damaged run" "$LOCKSTEP" runs list
said "it has its row" "^└ flat  *finished  *8/8 "
said "and the others" "^└ faster "
equal "and is told" "$(sed 's/ no good.*//' .err)" "lockstep: warning: run flat: the run's record has"
equal "in JSON too" "$("$LOCKSTEP" runs list --json 2>/dev/null | grep -c '"damage": "the run.s record has no good value for model.width')" 1
check "runs show of it" "$LOCKSTEP" runs show flat
said "says what is damaged" "^damaged  *the run.s record has no good value for model.width"
quiet "$TOOLS/tamper" "$LOCKSTEP_STORE" faster record
check "a list with a run whose record is no JSON" "$LOCKSTEP" runs list
said "it has its row" "^faster  *- "
said "and the others theirs" "^whole  *finished "
equal "why, and what to do" "$(grep -o 'warning: run faster: the record of run faster.*runs rm faster.$' .err | wc -l)" 1
check "in JSON" bash -c "'$LOCKSTEP' runs list --json 2>/dev/null >list.json && '$TOOLS/json_check' <list.json"
equal "with name and damage alone" "$(sed -n '/"name": "faster"/,/^  }/p' list.json | grep -c '"damage": "the record of run faster')" 1
for command in "runs show" "runs log" "runs compare whole" "train --resume" "train --from" eval verify; do
    fails "$command of it" 1 "faster" "lockstep runs rm faster" -- "$LOCKSTEP" $command faster
done
fails "its name is not given anew" 1 "the record of run faster" -- "$LOCKSTEP" train c.ini run.name=faster
blobs() { find "$LOCKSTEP_STORE/blobs" -type f | sort; }
before=$(blobs)
fails "gc leaves all that it may name" 1 "nothing was removed" "the row r/run/faster is damaged" "lockstep runs rm faster" -- "$LOCKSTEP" gc --grace 0
check "other runs still train, and drop their checkpoints" "$LOCKSTEP" train c.ini run.name=pruned run.steps=3 checkpoint.every=1 checkpoint.keep=1
equal "no blob went" "$(comm -23 <(echo "$before") <(blobs) | wc -l)" 0
check "such a run can be removed" "$LOCKSTEP" runs rm faster
check "gc goes on" "$LOCKSTEP" gc --grace 0
differ "and removes what nobody needs" "$(comm -23 <(echo "$before") <(blobs) | wc -l)" 0
check "what others need is there" "$LOCKSTEP" verify whole
if command -v python3 >/dev/null; then check "it is XML" python3 -c 'import sys, xml.dom.minidom as m; [m.parse(f) for f in sys.argv[1:]]' step.svg tokens.svg seconds.svg whole-and-1.svg; fi
finish
