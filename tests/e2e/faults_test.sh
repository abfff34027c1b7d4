#!/bin/bash
# lockstep serve where things go wrong: values of every type in every parameter, a thousand connections that hold places, clients
# that vanish, stall and send rubbish, and SIGKILL in the middle of that. The long ones: make test-soak, test-connections,
# test-serve-sanitize.
. "$(dirname "$0")/lib.sh"
talking_model
[ $FAILED -eq 0 ] || finish
if serve one talk --connections 1100 --of-one-client 1100 --client-timeout 2; then ok "it listens"; else not_ok "it listens" "$(cat one.log one.err)" && finish; fi
client "parameters: " serve_params.py "$URL" talk "$HERE/../../src/serve/api/params.c"
client "connections: " serve_connections.py "$URL" talk 1000 $server 2
kill $server
wait $server

# --- SIGKILL under load -------------------------------------------------------------------------------------------------------
answers() { # of fixed seeds, without what is new each time
    local s
    for s in 1 2 3 4 5 6; do
        curl -s "$URL/v1/completions" -d "{\"prompt\": \"it was\", \"max_tokens\": 30, \"n\": 2, \"seed\": $s, \"logprobs\": 2}" | sed 's/.*"choices"/"choices"/; s/"usage".*//'
    done
}
serve two talk
want=$(answers)
python3 "$HERE/../serve_load.py" "$URL" talk 60 --until-gone >load.txt 2>&1 &
load=$!
sleep 2
{ kill -9 $server && wait $server; } 2>/dev/null
wait $load
equal "SIGKILL under load: no answer before was another" $? 0
sed 's/^/    /' load.txt
began=$(now_ms)
port=${URL##*:}
"$LOCKSTEP" serve talk --listen "127.0.0.1:$port" >three.log 2>three.err &
server=$!
until curl -so .out "$URL/health"; do kill -0 $server 2>/dev/null || break; sleep 0.02; done
took=$(($(now_ms) - began))
equal "started again at the same port, it gives the same answers" "$(answers)" "$want"
if [ $took -lt 5000 ]; then ok "at once"; else not_ok "at once" "$took ms"; fi
echo "    it answers $took ms after its start"
check "load, and then nothing of it is left" python3 "$HERE/../serve_load.py" "$URL" talk 6 --pid $server --growth 8
sed 's/^/    /' .out
kill $server
wait $server
equal "SIGTERM ends it well" $? 0
finish
