#!/bin/bash
# go.sh FOLDER MODULE@VERSION: into FOLDER/bin our Go client, grpcurl, Google's emulator, and the client's own integration tests, which
# are built from a copy of the module that is changed in two places: the emulator that they would start is our server, and the family
# of sums that all of them share is a plain one.
set -eu
folder=$1 module=$2
cd "$(dirname "$0")/go"
mkdir -p "$folder/bin"
go build -o "$folder/bin/client" .
go build -o "$folder/bin/emulator" cloud.google.com/go/bigtable/cmd/emulator
GOBIN=$folder/bin go install github.com/fullstorydev/grpcurl/cmd/grpcurl@v1.9.4
from=$(go mod download -json "$module" | sed -n 's/.*"Dir": "\(.*\)".*/\1/p')
copy=$folder/bigtable
rm -rf "$copy"
cp -r "$from" "$copy"
chmod -R u+w "$copy"
cd "$copy"
sed -i 's|^func NewServer(laddr string.*{$|&\n\tif h := os.Getenv("LOCKSTEP_TABLES"); h != "" {\n\t\treturn \&Server{Addr: h}, nil\n\t}|
s|^func (s \*Server) Close() {$|&\n\tif s.s == nil {\n\t\treturn\n\t}|' bttest/inmem.go
sed -i 's/^\t\tif config != nil {$/\t\tif config != nil \&\& family != "sum" {/' integration_test.go
go test -c -o "$folder/bin/integration" .
rm -rf "$copy"
