#!/bin/bash
# A store whose blobs are in a bucket of a real server (SeaweedFS): the same roots as in a folder, from another machine (an empty
# cache), by ranks, with the server stopped, damaged and started again. make test-s3 installs the server and runs this.
. "$(dirname "$0")/lib.sh"
. "$HERE/../s3/server.sh"
export LOCKSTEP_CACHE=$WORK/cache LOCKSTEP_S3_PATIENCE=5
FOLDER=$WORK/folder
s3() { curl -s -m 30 --aws-sigv4 aws:amz:us-east-1:s3 --user testkey:testsecret "$@"; }
put() { s3 -f -T "$1" -H 'x-amz-content-sha256: UNSIGNED-PAYLOAD' "$2" >/dev/null || not_ok "put $1 by curl"; }
keys() { s3 "$AWS_ENDPOINT_URL/bucket?list-type=2&prefix=team%2F" | grep -o '<Key>[^<]*' | cut -d'>' -f2 | sort; }
elsewhere() { rm -rf "$LOCKSTEP_CACHE"; } # as on a machine that has seen nothing yet

if ! s3_start "$WORK/s3" >started 2>&1; then
    not_ok "a server" "$(cat started)"
    finish
fi
ok "a server"
standard_data
config c.ini run.name=r
check "a run in a folder" "$LOCKSTEP" train c.ini
result r >folder.result
ledger r >folder.ledger
find "$LOCKSTEP_STORE/blobs" -path '*/tmp' -prune -o -type f -printf '%P\n' | sort >folder.blobs

export LOCKSTEP_STORE=$FOLDER LOCKSTEP_BLOBS=s3://bucket/team
standard_data
check "the same run with its blobs in a bucket" "$LOCKSTEP" train c.ini
equal "has the same roots" "$(result r)" "$(cat folder.result)"
equal "and ledger" "$(ledger r)" "$(cat folder.ledger)"
equal "and blobs, by name" "$(keys | sed 's|^team/||')" "$(cat folder.blobs)"
check "no blob is in the store's folder" test ! -e "$FOLDER/blobs"
elsewhere
check "read from elsewhere: the dataset is whole" "$LOCKSTEP" dataset verify d
check "the run is verified" "$LOCKSTEP" verify r
check "it is evaluated" "$LOCKSTEP" eval r
check "it generates" "$LOCKSTEP" generate r the --tokens 5
equal "--blobs is LOCKSTEP_BLOBS" "$(env -u LOCKSTEP_BLOBS "$LOCKSTEP" dataset verify d --blobs s3://bucket/team)" "$("$LOCKSTEP" dataset verify d)"
fails "at another prefix there is nothing" 1 "is not in s3://bucket/nobody" -- "$LOCKSTEP" dataset verify d --blobs s3://bucket/nobody
fails "nor in another bucket" 1 "there is no such bucket" -- env LOCKSTEP_CACHE="$WORK/empty" "$LOCKSTEP" dataset verify d --blobs s3://buckets/team
fails "a wrong key says so" 1 "AWS_SECRET_ACCESS_KEY" -- env LOCKSTEP_CACHE="$WORK/empty" AWS_SECRET_ACCESS_KEY=SECRETWORD "$LOCKSTEP" dataset verify d
check "without showing it" sh -c '! LOCKSTEP_CACHE=$0/empty AWS_SECRET_ACCESS_KEY=SECRETWORD "$1" dataset verify d 2>&1 | grep SECRETWORD' "$WORK" "$LOCKSTEP"
elsewhere
check "the bucket in the server's name" env AWS_ENDPOINT_URL="${AWS_ENDPOINT_URL/127.0.0.1/localhost}" LOCKSTEP_S3_STYLE=virtual "$LOCKSTEP" dataset verify d
if [ -n "${S3_TLS:-}" ]; then
    tls() { env AWS_ENDPOINT_URL="$S3_TLS" LOCKSTEP_CACHE="$WORK/tls" LOCKSTEP_S3_PATIENCE=0.5 "$@"; }
    fails "a certificate of nobody's is not trusted" 1 "certificate" -- tls "$LOCKSTEP" dataset verify d
    check "but with AWS_CA_BUNDLE" tls env AWS_CA_BUNDLE="$S3_CERT" "$LOCKSTEP" dataset verify d
    fails "for its own name only" 1 "127.0.0.1" -- tls env AWS_CA_BUNDLE="$S3_CERT" AWS_ENDPOINT_URL="${S3_TLS/localhost/127.0.0.1}" LOCKSTEP_CACHE="$WORK/tls2" "$LOCKSTEP" dataset verify d
fi
mkdir -p "$WORK/home/.aws"
printf '[default]\naws_access_key_id = testkey\naws_secret_access_key = testsecret\n' >"$WORK/home/.aws/credentials"
check "keys from a file" env -u AWS_ACCESS_KEY_ID -u AWS_SECRET_ACCESS_KEY HOME="$WORK/home" LOCKSTEP_CACHE="$WORK/cache2" "$LOCKSTEP" dataset verify d
printf '[default]\naws_access_key_id = oldkey\naws_secret_access_key = oldsecret\n' >"$WORK/home/.aws/credentials"
env -u AWS_ACCESS_KEY_ID -u AWS_SECRET_ACCESS_KEY HOME="$WORK/home" LOCKSTEP_CACHE="$WORK/cache3" "$LOCKSTEP" dataset verify d >old.out 2>old.err
check "a file whose keys the server does not know" grep -q "AWS_ACCESS_KEY_ID\|may not do that" old.err

# a folder of blobs, copied by hand, is the same place
(cd "$WORK/store/blobs" && while read -r f; do put "$f" "$AWS_ENDPOINT_URL/bucket/copied/$f"; done <"$WORK/folder.blobs")
elsewhere
check "a folder of blobs that was copied into the bucket" "$LOCKSTEP" dataset verify d --blobs s3://bucket/copied

# larger than a part: several parts, several ranges
BENCH=$(dirname "$LOCKSTEP")/bench/s3_bench
head -c 30000000 /dev/urandom >large
check "30 MB in parts" "$BENCH" up s3://bucket/large large
root=$(awk '{ print $NF }' "$WORK/.out")
check "put again" "$BENCH" up s3://bucket/large large
equal "is the same" "$(awk '{ print $NF }' "$WORK/.out")" "$root"
elsewhere
check "and comes back" "$BENCH" down s3://bucket/large "$root" large
equal "no upload is left" "$(s3 "$AWS_ENDPOINT_URL/bucket?uploads=" | grep -c UploadId)" 0
if have_ranks; then
    config m.ini run.name=m
    check "two ranks write one blob" "$LOCKSTEP" train m.ini --on local:2
    equal "to the same roots" "$(result m)" "$(cat folder.result)"
fi
# rows in PostgreSQL, blobs in the bucket
chmod 755 "$WORK"
postgres=$HERE/../postgres.sh
if url=$("$postgres" start "$WORK/pg"); then
    both() { env LOCKSTEP_STORE="$url&schema=both" LOCKSTEP_BLOBS=s3://bucket/both "$@"; }
    quiet both "$LOCKSTEP" tokenizer train text.txt --vocab 700 --name t
    quiet both "$LOCKSTEP" dataset build d text.txt --tokenizer t --holdout 0.05
    check "a run with its rows in PostgreSQL" both "$LOCKSTEP" train c.ini
    equal "has the same roots" "$(both "$LOCKSTEP" runs show r --json | grep -E '^  "(identity|weights_root|state_root)"')" "$(grep -E '^  "(identity|weights_root|state_root)"' folder.result)"
    elsewhere
    check "and is verified from elsewhere" both "$LOCKSTEP" verify r
    # a store moves there and back, killed on its way
    rows_root() { "$LOCKSTEP" store show --json "$@" | field rows_root; }
    moved() { "$LOCKSTEP" store move "$WORK/store" "$url&schema=moved" --to-blobs s3://bucket/moved; }
    for _ in 1 2 3 4 5 6 7 8; do
        moved >/dev/null 2>&1 &
        pid=$!
        sleep 0.$((RANDOM % 6))$((RANDOM % 9))
        kill -9 $pid 2>/dev/null && ! wait $pid 2>/dev/null || break
    done
    moved >move.out 2>move.err || grep -q already move.err
    there() { LOCKSTEP_STORE="$url&schema=moved" LOCKSTEP_BLOBS=s3://bucket/moved "$@"; }
    folder() { LOCKSTEP_BLOBS='' LOCKSTEP_STORE="$WORK/$1" "${@:2}"; }
    equal "a store moved from a folder to PostgreSQL and a bucket has equal rows" "$(there rows_root)" "$(folder store rows_root)"
    elsewhere
    check "its run is verified from elsewhere" there "$LOCKSTEP" verify r
    equal "to the same result" "$(there result r)" "$(cat folder.result)"
    head -c 3000000 /dev/urandom | base64 >noise.txt
    quiet there "$LOCKSTEP" dataset build noise noise.txt --tokenizer t
    for _ in 1 2 3 4; do
        "$LOCKSTEP" store move "$url&schema=moved" "$WORK/returned" --from-blobs s3://bucket/moved >/dev/null 2>&1 &
        pid=$!
        sleep 0.$((RANDOM % 4))$((RANDOM % 9))
        kill -9 $pid 2>/dev/null && ! wait $pid 2>/dev/null || break
    done
    elsewhere
    "$LOCKSTEP" store move "$url&schema=moved" "$WORK/returned" --from-blobs s3://bucket/moved >move.out 2>move.err || grep -q already move.err || not_ok "it moves back" "$(cat move.err)"
    equal "it moves back with equal rows" "$(folder returned rows_root)" "$(there rows_root)"
    check "its run is verified in the folder" folder returned "$LOCKSTEP" verify r
    check "and its dataset" folder returned "$LOCKSTEP" dataset verify noise
    name=$(there "$LOCKSTEP" dataset show noise --json | field root)
    s3 -o object "$AWS_ENDPOINT_URL/bucket/moved/${name:0:2}/${name:2}"
    sed 's/./?/' object >bad
    put bad "$AWS_ENDPOINT_URL/bucket/moved/${name:0:2}/${name:2}"
    elsewhere
    fails "a damaged object stops a move" 1 "$name" "goes on where it was" -- "$LOCKSTEP" store move "$url&schema=moved" "$WORK/never" --from-blobs s3://bucket/moved
    # the demo, with the root that README.md has
    if command -v bible >/dev/null; then
        demo() { DEMO_STORE="$url&schema=demo" DEMO_BLOBS=s3://bucket/demo "$HERE/../../tools/demo.sh" "$LOCKSTEP" "$@" >demo.out 2>demo.err; }
        if demo; then ok "the demo has its roots there"; else not_ok "the demo has its roots there" "$(tail -n 5 demo.err demo.out)"; fi
        equal "both of them, and the server's tokens" "$(grep -c '^equal$' demo.out)" "$(grep -c '^README\|^two ranks\|^the server.s' demo.out)"
        equal "and nothing of it is elsewhere" "$(ls -d demo.d/store 2>&1 | grep -c 'No such')" 1
        fails "once" 1 "an earlier demo made" -- env DEMO_STORE="$url&schema=demo" DEMO_BLOBS=s3://bucket/demo "$HERE/../../tools/demo.sh" "$LOCKSTEP"
    else echo "# no bible here: the demo is left out"; fi
    "$postgres" stop "$WORK/pg"
fi

check "gc keeps what is named" "$LOCKSTEP" gc --grace 0
equal "all of it" "$(keys | grep -cFf <(sed 's|^|team/|' folder.blobs))" "$(wc -l <folder.blobs)"
quiet "$LOCKSTEP" runs rm r
[ ! -e m.ini ] || quiet "$LOCKSTEP" runs rm m
before=$(keys | wc -l)
check "and removes the rest" "$LOCKSTEP" gc --grace 0
[ "$(keys | wc -l)" -lt "$before" ] && ok "from the bucket" || not_ok "from the bucket" "$(keys)"

# damage: an object of other bytes is not believed, and put again
root=$("$LOCKSTEP" dataset show d --json | field root) name=team/${root:0:2}/${root:2}
s3 -o whole "$AWS_ENDPOINT_URL/bucket/$name"
sed 's/./?/' whole >bad
put bad "$AWS_ENDPOINT_URL/bucket/$name"
elsewhere
fails "a damaged object is found" 1 "damaged" -- "$LOCKSTEP" dataset verify d
put whole "$AWS_ENDPOINT_URL/bucket/$name"
check "and restored" "$LOCKSTEP" dataset verify d
kill $s3_server
wait $s3_server 2>/dev/null
check "what is in the cache is read without the server" "$LOCKSTEP" dataset verify d
elsewhere
fails "all else says which server is missing" 1 "127.0.0.1" -- env LOCKSTEP_S3_PATIENCE=0.5 "$LOCKSTEP" dataset verify d
finish
