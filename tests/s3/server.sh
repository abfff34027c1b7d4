# Sourced: an S3 server of SeaweedFS on 127.0.0.1, from build/s3 (make test-s3 installs it). Ports below the ephemeral ones.
: "${WEED:?the program weed, as build/s3/bin/weed}"
s3_code() { curl -s -m 5 -o /dev/null -w '%{http_code}' --aws-sigv4 aws:amz:us-east-1:s3 --user testkey:testsecret "$@"; }
S3_OPTIONS=
# s3_start DIR: in the background as $s3_server, at $AWS_ENDPOINT_URL, with a bucket "bucket" and the keys in the environment
s3_start() {
    local dir=$1 base=$((20000 + $$ % 1000 * 10)) i
    mkdir -p "$dir/data" || return 1
    echo '{"identities":[{"name":"t","credentials":[{"accessKey":"testkey","secretKey":"testsecret"}],"actions":["Admin"]}]}' >"$dir/keys.json"
    unset AWS_ENDPOINT_URL_S3 AWS_SESSION_TOKEN AWS_PROFILE AWS_REGION AWS_DEFAULT_REGION AWS_CA_BUNDLE LOCKSTEP_S3_STYLE
    export AWS_ACCESS_KEY_ID=testkey AWS_SECRET_ACCESS_KEY=testsecret AWS_ENDPOINT_URL=http://127.0.0.1:$((base + 3)) no_proxy=127.0.0.1
    if command -v openssl >/dev/null; then # https on the next port
        openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 2 -subj /CN=localhost -addext subjectAltName=DNS:localhost,DNS:bucket.localhost \
            -keyout "$dir/key.pem" -out "$dir/cert.pem" 2>/dev/null || return 1
        S3_OPTIONS="-s3.port.https=$((base + 8)) -s3.cert.file=$dir/cert.pem -s3.key.file=$dir/key.pem"
        S3_TLS=https://localhost:$((base + 8)) S3_CERT=$dir/cert.pem
    fi
    "$WEED" -logdir="$dir" server -dir="$dir/data" -ip=127.0.0.1 -ip.bind=127.0.0.1 -master.telemetry=false -master.volumeSizeLimitMB=1024 -volume.max=50 \
        -master.port=$base -master.port.grpc=$((base + 4)) -volume.port=$((base + 1)) -volume.port.grpc=$((base + 5)) \
        -filer -filer.port=$((base + 2)) -filer.port.grpc=$((base + 6)) -filer.localSocket="$dir/filer.sock" \
        -s3 -s3.domainName=localhost $S3_OPTIONS -s3.port=$((base + 3)) -s3.port.grpc=$((base + 7)) -s3.localSocket="$dir/s3.sock" -s3.port.iceberg=0 -s3.port.lance=0 -s3.config="$dir/keys.json" >"$dir/log" 2>&1 &
    s3_server=$!
    for i in $(seq 200); do
        [ "$(s3_code -X PUT "$AWS_ENDPOINT_URL/bucket")" = 200 ] && return 0
        kill -0 $s3_server 2>/dev/null || break
        sleep 0.1
    done
    echo "the S3 server did not start:" && tail -n 20 "$dir/log"
    return 1
}
