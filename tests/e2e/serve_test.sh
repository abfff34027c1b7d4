#!/bin/bash
# lockstep serve by real requests: what generate says, streams, errors for every parameter, keys, killing, draining.
. "$(dirname "$0")/lib.sh"
command -v curl >/dev/null || { ok "serve: skipped, there is no curl"; finish; }

talking_model
[ $FAILED -eq 0 ] || finish
text_of() { "$LOCKSTEP" generate talk "$@" --json | python3 -c 'import json, sys; print(json.load(sys.stdin)["text"])'; }

if serve first talk --alias other=talk --slots 4 --page 16; then ok "it listens"; else not_ok "it listens" "$(cat first.log first.err)" && finish; fi
equal "curl gets generate's text" "$(curl -s "$URL/v1/completions" -d '{"model": "talk", "prompt": "in the", "max_tokens": 24, "temperature": 0.9, "top_p": 0.9, "seed": 5}' |
    python3 -c 'import json, sys; print(json.load(sys.stdin)["choices"][0]["text"])')" \
    "$(text_of "in the" --tokens 24 --temperature 0.9 --top-p 0.9 --seed 5)"
client "" serve_client.py "$LOCKSTEP" "$URL" talk

check "serve bench puts load on it" "$LOCKSTEP" serve bench "$URL" --streams 6 --requests 20 --prompt 40 --shared 20 --tokens 9 --model talk
said "all are answered" "^6 streams, 20 of 20 requests answered"
said "tells percentiles" "^time to first token +p50 .* p99"
fails "a server that is not there" 1 "requests failed; the first: cannot connect" -- "$LOCKSTEP" serve bench http://127.0.0.1:1 --requests 1
fails "no address" 2 "no address as http" -- "$LOCKSTEP" serve bench ftp://x

# --- under way: the end by a signal ---------------------------------------------------------------------------------------------
curl -sN "$URL/v1/completions" -d '{"prompt": "in", "max_tokens": 200, "stream": true, "ignore_eos": true}' >stream.txt &
reader=$!
for i in $(seq 100); do grep -q data: stream.txt && break; sleep 0.02; done
kill -TERM $server
wait $reader
wait $server
equal "SIGTERM ends it well" $? 0
equal "after the stream's end" "$(tail -n 2 stream.txt | head -n 1)" "data: [DONE]"
equal "which is whole" "$(grep -c '"finish_reason":"length"' stream.txt)" 1

# --- killed under load, and again ---------------------------------------------------------------------------------------------
serve second talk
want=$(curl -s "$URL/v1/completions" -d '{"prompt": "it was", "max_tokens": 30, "seed": 3, "logprobs": 2}' | sed 's/.*"choices"/"choices"/; s/"usage".*//')
for i in 1 2 3 4; do curl -s "$URL/v1/completions" -d '{"prompt": "in the", "max_tokens": 240, "n": 4, "ignore_eos": true}' >/dev/null & done
sleep 0.1
kill -9 $server
wait 2>/dev/null
serve third talk --slots 2 --page 5 --rows 7 --draft 0
equal "killed and started again, with other slots and pages: the same answer" \
    "$(curl -s "$URL/v1/completions" -d '{"prompt": "it was", "max_tokens": 30, "seed": 3, "logprobs": 2}' | sed 's/.*"choices"/"choices"/; s/"usage".*//')" "$want"
kill $server
wait $server

# --- one place, and signals without end -------------------------------------------------------------------------------------
serve narrow talk --slots 1 --queue 0
curl -sN "$URL/v1/completions" -d '{"prompt": "in", "max_tokens": 250, "stream": true, "ignore_eos": true, "n": 1}' >narrow.txt &
reader=$!
for i in $(seq 100); do grep -q data: narrow.txt && break; sleep 0.02; done
full=$(curl -s "$URL/v1/completions" -d '{"prompt": "in", "max_tokens": 1}')
if wait $reader && grep -q "waiting already" <<<"$full"; then
    equal "who finds no place is counted" "$(curl -s "$URL/metrics" | sed -n 's/^lockstep:refused_total{status="429"} //p')" 1
fi
equal "n beyond all places is an error, not a wait" "$(curl -s -o /dev/null -w '%{http_code}' "$URL/v1/completions" -d '{"prompt": "in", "n": 2}')" 400
(while kill -HUP $server && kill -TERM $server; do :; done) 2>/dev/null &
storm=$!
wait $server
equal "a storm of signals ends it well" $? 0
wait $storm

# --- weights in memory once, though none of the tensors has a multiple of 16 numbers --------------------------------------------
config large.ini run.name=large data.dataset=talk run.steps=1 model.layers=10 model.width=250 model.heads=5 model.ffn=1001 model.context=64 batch.context=8 \
    batch.sequences=1 batch.grains=1 eval.every=0 checkpoint.every=1 eval.sequences=0
quiet "$LOCKSTEP" train large.ini
serve large large --memory 1M --slots 2 || not_ok "a large model is served" "$(cat large.err)"
curl -s "$URL/v1/completions" -d '{"prompt": "in the", "max_tokens": 3}' >/dev/null
weights=$((4 * 10 * (4 * 250 * 250 + 3 * 250 * 1001) / 1024)) # KiB
anonymous=$(awk '/^RssAnon/ { print $2 }' /proc/$server/status)
if [ "$anonymous" -lt $((weights * 3 / 2)) ]; then ok "weights are in memory once"; else not_ok "weights are in memory once" "$anonymous KiB, weights $weights KiB"; fi
echo "    weights $weights KiB, anonymous memory $anonymous KiB"
kill $server
wait $server

# --- a run's newest checkpoint ----------------------------------------------------------------------------------------------
config f.ini run.name=f data.dataset=talk run.steps=300 model.context=256 batch.context=32 batch.sequences=1 batch.grains=1 eval.every=0 \
    checkpoint.every=20 eval.sequences=0
"$LOCKSTEP" train f.ini >/dev/null 2>&1 &
trainer=$!
wait_step f 40 $trainer
{ kill -9 $trainer && wait $trainer; } 2>/dev/null
serve follow f --follow
first=$(curl -s "$URL/v1/models" | sed 's/.*"root":"\([0-9a-f]*\)".*/\1/')
(while [ ! -e over ]; do curl -s -o /dev/null -w '%{http_code}\n' "$URL/v1/completions" -d '{"prompt": "in the", "max_tokens": 20, "ignore_eos": true}'; done >codes.txt) &
asking=$!
quiet "$LOCKSTEP" train --resume f
last=$(run_field f weights_root)
for i in $(seq 100); do
    now=$(curl -s "$URL/v1/models" | sed 's/.*"root":"\([0-9a-f]*\)".*/\1/')
    [ "$now" = "$last" ] && break
    sleep 0.1
done
touch over
wait $asking
differ "--follow: it began with another checkpoint" "$first" "$last"
equal "--follow: the newest is served" "$now" "$last"
equal "--follow: an answer names it" "$(curl -s "$URL/v1/completions" -d '{"prompt": "in the", "max_tokens": 1}' | sed 's/.*"model_root":"\([0-9a-f]*\)".*/\1/')" "$last"
equal "--follow: no request was dropped" "$(sort -u codes.txt)" 200
equal "--follow: and its text is generate's" "$(curl -s "$URL/v1/completions" -d '{"prompt": "in the", "max_tokens": 24, "temperature": 0.9, "seed": 5}' |
    python3 -c 'import json, sys; print(json.load(sys.stdin)["choices"][0]["text"])')" \
    "$("$LOCKSTEP" generate f "in the" --tokens 24 --temperature 0.9 --top-p 1 --seed 5 --json | python3 -c 'import json, sys; print(json.load(sys.stdin)["text"])')"
kill $server
wait $server

# --- keys ---------------------------------------------------------------------------------------------------------------------
check "a key is made" "$LOCKSTEP" serve key alice --keys keys
key=$(sed -n 's/^key *//p' .out)
quiet "$LOCKSTEP" serve key bob --keys keys
bob=$(sed -n 's/^key *//p' .out)
equal "its file holds no key" "$(grep -c lk- keys)" 0
sed -i '/^bob/s/$/ requests=1/' keys
serve fourth talk --keys keys
ask() { curl -s -o answer.txt -w '%{http_code}' "$@" "$URL/v1/completions" -d '{"prompt": "in", "max_tokens": 1}'; }
equal "nobody without a key" "$(ask)" 401
equal "nor with another" "$(ask -H "Authorization: Bearer lk-AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA")" 401
equal "with a key" "$(ask -H "Authorization: Bearer $key")" 200
equal "once a minute" "$(ask -H "Authorization: Bearer $bob")$(ask -H "Authorization: Bearer $bob" -D head.txt)" 200429
if grep -qi "^Retry-After: 60" head.txt; then ok "and says when again"; else not_ok "and says when again" "$(cat head.txt)"; fi
sed -i '/^alice/d' keys
kill -HUP $server
for i in $(seq 100); do grep -q "read again" fourth.err && break; sleep 0.05; done
equal "SIGHUP takes a key away" "$(ask -H "Authorization: Bearer $key")" 401
equal "no key is in what it wrote" "$(cat fourth.log fourth.err | grep -c lk-)" 0
kill $server
wait $server
chmod 644 keys
fails "a keys file that others read" 1 "others may read or change it: chmod 600 keys" -- "$LOCKSTEP" serve talk --keys keys
fails "others only with keys" 2 "lets others come: give --keys FILE" -- "$LOCKSTEP" serve talk --listen 0.0.0.0:0
fails "no such model" 1 "nothing" -- "$LOCKSTEP" serve nothing
fails "an address that is none" 1 "no address to listen to|no such host" -- "$LOCKSTEP" serve talk --no-keys --listen here
fails "too little memory" 1 "pages of 32 positions are too few" -- "$LOCKSTEP" serve talk --memory 1K
finish
