#!/bin/bash
# Models in fewer bits: the same root everywhere, the same losses and texts whatever computes them, and what they are not for.
. "$(dirname "$0")/lib.sh"

talking_model 128
[ $FAILED -eq 0 ] || finish
config wide.ini run.name=wide data.dataset=talk run.steps=3 model.layers=2 model.width=96 model.heads=3 model.ffn=160 model.context=64 batch.context=32 \
    batch.sequences=2 batch.grains=2 eval.every=0 checkpoint.every=3 eval.sequences=0
quiet "$LOCKSTEP" train wide.ini
model_field() { "$LOCKSTEP" model show "$1" --json | sed -n "s/.*\"$2\": \"\([^\"]*\)\".*/\1/p"; }
text_of() { "$LOCKSTEP" generate "$@" "in the" --tokens 30 --seed 5 --json | python3 -c 'import json, sys; print(json.load(sys.stdin)["text"])'; }
loss_of() { "$LOCKSTEP" eval "$@" --dataset wide --json | sed -n 's/.*"loss": \([^,]*\),*/\1/p'; }
quiet "$LOCKSTEP" dataset build wide text.txt --tokenizer chat --holdout 0.5
plain=$(loss_of wide)
for to in q8 q4 bf16; do
    check "$to: a run in fewer bits" "$LOCKSTEP" model quantize wide --to $to
    said "$to: it is named after the run" "^model wide-$to: llama, .* parameters in $to, weights root"
    root=$(model_field wide-$to weights_root)
    first=$(text_of wide-$to) loss=$(loss_of wide-$to)
    for isa in $("$LOCKSTEP" doctor --json | python3 -c 'import json, sys; print(*json.load(sys.stdin)["isas"])' 2>/dev/null || echo ref); do
        LOCKSTEP_ISA=$isa "$LOCKSTEP" model quantize wide --to $to --as other --threads 1 >/dev/null
        equal "$to, $isa: the same root" "$(model_field other weights_root)" "$root"
        equal "$to, $isa: the same text" "$(LOCKSTEP_ISA=$isa text_of other --threads 1)" "$first"
        equal "$to, $isa: the same loss" "$(LOCKSTEP_ISA=$isa loss_of other)" "$loss"
    done
    if python3 -c "import sys; sys.exit(not (abs($loss - $plain) < 0.05 and $loss != $plain))"; then ok "$to: a loss near the run's"; else not_ok "$to: a loss near the run's" "$loss, $plain"; fi
done
check "a model says what it was made from" "$LOCKSTEP" model show wide-q4
said "its weights" "^weights +q4, embedding and head q8"
said "and the root of their floats" "^made from +$(run_field wide weights_root)"

check "two models side by side" "$LOCKSTEP" eval wide --beside wide-q8 --dataset wide
said "how often they agree" "^the same likeliest token before [0-9.]+% of them"
check "with itself" "$LOCKSTEP" eval wide-q8 --beside wide-q8 --dataset wide
said "always" "before 100.00% of them"

serve narrow wide-q4 --slots 2 --page 8
equal "the server says what generate does" "$(curl -s "$URL/v1/completions" -d '{"prompt": "in the", "max_tokens": 30, "temperature": 0.8, "top_p": 0.95, "seed": 5}' |
    python3 -c 'import json, sys; print(json.load(sys.stdin)["choices"][0]["text"])')" "$(text_of wide-q4 --temperature 0.8 --top-p 0.95)"
curl -s "$URL/v1/completions" -d '{"prompt": "it", "max_tokens": 9, "lockstep": {"receipt": true}}' >receipt.json
kill $server
wait $server
check "and a receipt is made again" env LOCKSTEP_ISA=ref "$LOCKSTEP" response verify receipt.json

# --- keys and values in 8 bits -----------------------------------------------------------------------------------------------
with_q8=$(text_of wide --cache q8 --temperature 0.8 --top-p 0.95)
equal "keys in q8: ref says the same" "$(LOCKSTEP_ISA=ref text_of wide --cache q8 --threads 1 --temperature 0.8 --top-p 0.95)" "$with_q8"
serve cache wide --slots 2 --page 8 --cache q8
equal "keys in q8: the server says what generate does" "$(curl -s "$URL/v1/completions" -d '{"prompt": "in the", "max_tokens": 30, "temperature": 0.8, "top_p": 0.95, "seed": 5}' |
    python3 -c 'import json, sys; print(json.load(sys.stdin)["choices"][0]["text"])')" "$with_q8"
curl -s "$URL/v1/completions" -d '{"prompt": "it", "max_tokens": 9, "lockstep": {"receipt": true}}' >receipt.json
kill $server
wait $server
check "keys in q8: a receipt is made again" env LOCKSTEP_ISA=ref "$LOCKSTEP" response verify receipt.json
python3 - <<'EOF'
import hashlib, json
v = json.load(open("receipt.json"))
r = v["lockstep"]["receipts"][0]
assert r["request"].pop("cache") == "q8"
r["request_digest"] = hashlib.sha256(json.dumps(r["request"], sort_keys=True, separators=(",", ":")).encode()).hexdigest()
json.dump(v, open("floats.json", "w"))
EOF
fails "with keys in floats it would be another answer" 1 "differs" -- "$LOCKSTEP" response verify floats.json
check "what keys in q8 cost" "$LOCKSTEP" eval wide --beside wide --beside-cache q8 --dataset wide
said "a loss of its own" "^wide at step 3: held-out loss"
fails "heads of no whole blocks" 1 "want heads of a multiple of 32 numbers; the model's have 12" -- "$LOCKSTEP" generate talk "it" --cache q8
fails "serving neither" 1 "want heads of a multiple of 32 numbers; the model's have 12" -- "$LOCKSTEP" serve talk --cache q8 --listen 127.0.0.1:0

fails "twice is refused" 1 "weights are q8 already: quantize the model that it was made from" -- "$LOCKSTEP" model quantize wide-q8 --to q4
fails "a folder of it" 1 "weights are q4, which this format does not hold" -- "$LOCKSTEP" model export wide-q4 out
[ -e out ] && not_ok "nothing was written" "out"
config from.ini run.name=from data.dataset=wide run.steps=1 model.from=wide-q8
sed -i '/^\(layers\|width\|heads\|ffn\|context\)=/d' from.ini
fails "training from it" 1 "has weights in q8, which cannot be trained: begin with the model that it was made from" -- "$LOCKSTEP" train from.ini
finish
