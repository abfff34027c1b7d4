//go:build tools

package main

import _ "cloud.google.com/go/bigtable/cmd/emulator"
