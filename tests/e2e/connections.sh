#!/bin/bash
# make test-connections: 10,000 connections that are idle or send half a request, at the default --client-timeout.
. "$(dirname "$0")/lib.sh"
COUNT=${COUNT:-10000}
[ "$(ulimit -Hn)" = unlimited ] || [ "$(ulimit -Hn)" -gt $((COUNT + 300)) ] || { not_ok "this shell may have $(ulimit -Hn) descriptors only: ulimit -Hn $((COUNT + 300))" && finish; }
talking_model
[ $FAILED -eq 0 ] || finish
if serve many talk --connections $((COUNT + 100)) --of-one-client 6000; then ok "it listens"; else not_ok "it listens" "$(cat many.log many.err)" && finish; fi
check "$COUNT connections" python3 "$HERE/../serve_connections.py" "$URL" talk "$COUNT" $server 30
sed 's/^/    /' .out
kill $server
wait $server
equal "SIGTERM ends it well" $? 0
finish
