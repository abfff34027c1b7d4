#!/bin/bash
# All of what ranks_test.sh takes samples from (`make test-ranks`): every number of ranks up to 8, every kill from N ranks resumed
# by M, instruction sets in every order. The last line is "N passed, N failed".
. "$(dirname "$0")/lib.sh"

end() {
    echo "$PASSED passed, $FAILED failed"
    finish
}
if ! have_ranks; then
    ok "several ranks: skipped, this build has no MPI part or there is no mpirun"
    end
fi
seed
standard_data
# train COMMAND... CONFIG [keys]...: prints what must agree, with the ledger's sum; the run is removed
train() {
    local id
    id=$(mktemp -u r.XXXXXX)
    timeout -k 5 120 "$@" run.name=$id >$id.out 2>&1 || { tail -n 3 $id.out; return 1; }
    result $id
    ledger $id | cksum
    "$LOCKSTEP" runs rm $id >/dev/null
    rm $id.out
}
odd="model.vocab=1021 model.layers=1 model.context=33 run.steps=3 eval.every=3 eval.sequences=2 checkpoint.every=0"
config llama-untied.ini $odd model.tied=false
config llama-tied.ini $odd model.tied=true model.kv_heads=1
config gpt2-untied.ini $odd model.family=gpt2 model.heads=12 model.ffn=85 model.tied=false
config gpt2-tied.ini $odd model.family=gpt2 model.heads=12 model.ffn=85 model.tied=true

# --- every number of ranks ------------------------------------------------------------------------------------------------
for c in llama-untied llama-tied gpt2-untied gpt2-tied; do
    for grains in 8 12 7; do
        batch="batch.grains=$grains batch.sequences=$grains"
        want=$(train "$LOCKSTEP" train $c.ini $batch)
        if ! grep -q weights_root <<<"$want"; then not_ok "$c, $grains grains: trains" "$want"; continue; fi
        differ "$c, $grains grains: another seed, another result" "$(train "$LOCKSTEP" train $c.ini $batch run.seed=2 --on local:2)" "$want"
        for ranks in 1 2 3 4 5 6 7 8; do
            [ $ranks -gt $grains ] && continue
            for threads in 1 2; do
                for shared in yes no; do
                    got=$(LOCKSTEP_SHARED_MEMORY=$shared train "$LOCKSTEP" train $c.ini $batch --on local:$ranks --threads $threads)
                    equal "$c, $grains grains: $ranks rank(s) of $threads thread(s), shared memory: $shared" "$got" "$want"
                done
            done
        done
    done
done

# --- instruction sets in every order --------------------------------------------------------------------------------------
orders() { # prefix, what is left...
    local prefix=$1 i
    shift
    [ $# -eq 0 ] && echo "$prefix"
    for i in $(seq $#); do orders "$prefix ${!i}" "${@:1:i-1}" "${@:i+1}"; done
}
for c in llama-untied gpt2-tied; do
    want=$(train "$LOCKSTEP" train $c.ini)
    while read -r order; do
        mixed=() n=0
        for isa in $order; do mixed+=(: -n $((n++ % 2 + 1)) env LOCKSTEP_ISA=$isa "$LOCKSTEP" train $c.ini run.name=mixed); done
        quiet mpi "${mixed[@]:1}"
        equal "$c: ranks of $order" "$(result mixed; ledger mixed | cksum)" "$want"
        "$LOCKSTEP" runs rm mixed >/dev/null
    done < <(orders "" $(isas))
done

# --- killed with N ranks, resumed with M ----------------------------------------------------------------------------------
config c.ini run.steps=150 eval.every=50 checkpoint.every=5 batch.sequences=8 batch.grains=8 eval.sequences=2
want=$(train "$LOCKSTEP" train c.ini)
for n in 1 2 3 5 8; do
    for m in 1 2 3 5 8; do
        name=kill-$n-$m
        job $name "$LOCKSTEP" train --on local:$n c.ini run.name=$name
        wait_step $name $((RANDOM % 40)) $pid
        victim=$((RANDOM % n))
        process=$([ $n = 1 ] && echo $pid || job_rank $name $victim) # one rank is this process, without mpirun
        kill -9 "$process"
        job_ends $name 5000 || not_ok "$n ranks, $victim killed: somebody is left after 5 s" "$(cat $name.err)"
        [ $n = 1 ] || grep -q "rank $victim (process $process) was killed by signal 9" $name.err ||
            not_ok "$n ranks, $victim killed: it is not named" "$(cat $name.err)"
        [ "$(run_field $name state)" = killed ] || not_ok "$n ranks, $victim killed: the run is not shown as killed" "$(cat $name.err)"
        step=$(run_field $name step) shared=$([ $((RANDOM % 2)) = 0 ] && echo no || echo yes)
        LOCKSTEP_SHARED_MEMORY=$shared quiet timeout -k 5 300 "$LOCKSTEP" train --resume $name --on local:$m
        equal "rank $victim of $n killed after step $step, resumed by $m rank(s), shared memory: $shared" "$(result $name; ledger $name | cksum)" "$want"
        "$LOCKSTEP" runs rm $name >/dev/null
    done
done
end
