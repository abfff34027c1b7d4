#!/bin/bash
# make test-deploy: deploy/ for real, each part where its programs are: nginx in front of a server (TLS, keys, streams that are
# passed on at once), the unit through systemd-analyze, the image by buildah. Debian's packages: nginx-light, systemd, buildah, crun.
#   BASE      an image to stand for debian:12; unless given, debian:12 as the registry has it, or else one of debootstrap's
#   MIRROR    Debian's packages for debootstrap, http://deb.debian.org/debian
#   STEPS     "nginx unit image": which
. "$(dirname "$0")/e2e/lib.sh"
SOURCE=$(cd "$HERE/.." && pwd)
have() { # STEP PROGRAM...
    local p step=$1
    case " ${STEPS:-nginx unit image} " in *" $step "*) ;; *) return 1 ;; esac
    shift
    for p in "$@"; do command -v "$p" >/dev/null || { echo "    $step: skipped, there is no $p" && return 1; }; done
}
port_free() { python3 -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])'; }

talking_model
[ $FAILED -eq 0 ] || finish

# --- nginx ----------------------------------------------------------------------------------------------------------------------
if have nginx nginx openssl curl; then
    quiet "$LOCKSTEP" serve key alice --keys keys
    key=$(sed -n 's/^key *//p' .out)
    if serve behind talk --keys keys; then ok "a server listens"; else not_ok "a server listens" "$(cat behind.log behind.err)" && finish; fi
    tls=$(port_free)
    openssl req -x509 -newkey rsa:2048 -nodes -days 2 -subj /CN=models.example -addext subjectAltName=DNS:models.example -keyout models.key -out models.pem 2>/dev/null
    mkdir -p nginx && {
        [ "$(id -u)" != 0 ] || echo "user root;" # its own user may not look into our folder
        echo "daemon off; pid $WORK/nginx/pid; error_log $WORK/nginx/error.log; events { }"
        echo "http { access_log off; client_body_temp_path $WORK/nginx/b; proxy_temp_path $WORK/nginx/p; fastcgi_temp_path $WORK/nginx/f; uwsgi_temp_path $WORK/nginx/u; scgi_temp_path $WORK/nginx/s;"
        sed "s|127.0.0.1:8080|${URL#http://}|; s|listen 443|listen 127.0.0.1:$tls|; s|/etc/ssl|$WORK|" "$SOURCE/deploy/nginx.conf"
        echo "}"
    } >nginx/conf
    check "nginx takes deploy/nginx.conf" nginx -t -p "$WORK/nginx" -c "$WORK/nginx/conf"
    nginx -p "$WORK/nginx" -c "$WORK/nginx/conf" >nginx/out 2>&1 &
    proxy=$!
    through() { curl -s --cacert models.pem --resolve "models.example:$tls:127.0.0.1" "$@"; }
    address=https://models.example:$tls
    for i in $(seq 100); do through -o /dev/null "$address/health" && break; sleep 0.05; done
    equal "TLS ends at nginx" "$(through "$address/health")" '{"status":"ok"}'
    asked='{"prompt": "it was", "max_tokens": 30, "seed": 3, "logprobs": 2, "n": 3}'
    equal "nobody without a key" "$(through -o /dev/null -w '%{http_code}' "$address/v1/completions" -d "$asked")" 401
    choices() { sed 's/.*"choices"/"choices"/; s/"usage".*//'; }
    equal "the answer is the server's" "$(through -H "Authorization: Bearer $key" "$address/v1/completions" -d "$asked" | choices)" \
        "$(curl -s -H "Authorization: Bearer $key" "$URL/v1/completions" -d "$asked" | choices)"
    check "streams are passed on at once, and end where their client does" python3 "$HERE/deploy_stream.py" "$tls" "$URL" "$key"
    sed 's/^/    /' .out
    head -c 8000000 /dev/zero | tr '\0' ' ' >large.txt
    equal "a body of 8,000,000 bytes gets to the server" "$(through -H "Authorization: Bearer $key" -o /dev/null -w '%{http_code}' "$address/v1/completions" --data-binary @large.txt)" 400
    equal "nginx has nothing to complain about but what it keeps in files" "$(grep -v "buffered to a temporary file" nginx/error.log)$(echo none)" none
    kill $proxy $server
    wait $proxy $server
fi

# --- systemd --------------------------------------------------------------------------------------------------------------------
if have unit systemd-analyze; then
    sed "s|/usr/local/bin/lockstep|$LOCKSTEP|" "$SOURCE/deploy/lockstep.service" >lockstep.service
    check "systemd takes the unit" systemd-analyze verify "$WORK/lockstep.service"
    equal "without a warning" "$(cat .out .err; echo none)" none
    echo "    $(systemd-analyze security --offline=true "$WORK/lockstep.service" 2>/dev/null | tail -n 1)"
fi

# --- the image --------------------------------------------------------------------------------------------------------------------
if have image buildah; then
    image() { local what=$1 && shift && buildah --storage-driver vfs --root "$WORK/images" --runroot "$WORK/run" "$what" "$@"; }
    base() { # one for both names of the Containerfile
        image pull docker.io/library/debian:12 && image pull docker.io/library/debian:12-slim && return
        local from
        if [ -z "${BASE:-}" ]; then
            command -v debootstrap >/dev/null && debootstrap --variant=minbase bookworm "$WORK/debian" "${MIRROR:-http://deb.debian.org/debian}" || return 1
        fi
        from=$(image from scratch) && image copy -q "$from" "${BASE:-$WORK/debian}" / && image commit -q "$from" docker.io/library/debian:12 &&
            image tag docker.io/library/debian:12 docker.io/library/debian:12-slim && image rm "$from"
    }
    check "an image of Debian 12" base
    mkdir context && git -C "$SOURCE" archive HEAD | tar x -C context
    check "deploy/Containerfile builds" image bud --isolation chroot --pull=never -q -f context/deploy/Containerfile -t lockstep context
    box=$(image from --pull=never lockstep 2>/dev/null)
    check "its program runs" image run --isolation chroot "$box" -- lockstep version
    sed 's/^/    /' .out
    port=$(port_free)
    image run --isolation chroot -v "$LOCKSTEP_STORE:/lockstep.d" "$box" -- lockstep serve talk --listen 127.0.0.1:$port >image.log 2>image.err &
    for i in $(seq 100); do curl -so .health "127.0.0.1:$port/health" && break; sleep 0.1; done
    equal "and serves" "$(curl -s "127.0.0.1:$port/v1/completions" -d '{"prompt": "in the", "max_tokens": 24, "temperature": 0.9, "top_p": 1, "seed": 5}' | python3 -c 'import json, sys; print(json.load(sys.stdin)["choices"][0]["text"])')" \
        "$("$LOCKSTEP" generate talk "in the" --tokens 24 --temperature 0.9 --top-p 1 --seed 5 --json | python3 -c 'import json, sys; print(json.load(sys.stdin)["text"])')"
    inside=$(pgrep -nf "lockstep serve talk --listen 127.0.0.1:$port\$")
    check "SIGTERM goes to it" kill "$inside"
    wait
fi
finish
