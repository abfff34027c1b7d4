#!/bin/sh
# tools/install.sh install|uninstall BUILD PREFIX VERSION SO_VERSION: what `make install` and `make uninstall` do, below
# DESTDIR (environment; empty by default). One list says what lies where, so that what was installed can be taken away.
set -eu
cd "$(dirname "$0")/.."
verb=$1 build=$2 prefix=$3 version=$4 so_version=$5
case $prefix in /*) ;; *) echo "install: PREFIX=$prefix is no absolute path" >&2 && exit 2 ;; esac
root=${DESTDIR:-}$prefix
made=$(mktemp -d)
trap 'rm -rf "$made"' EXIT

pc() {
    cat <<PC
prefix=$prefix
includedir=\${prefix}/include
libdir=\${prefix}/lib

Name: lockstep
Description: trains language models and generates text, the same bits everywhere
Version: $version
Requires: jansson
Requires.private: lmdb libzstd zlib liblzma libcrypto$([ ! -e "$build/src/net/grpc_server.o" ] || echo " libprotobuf-c")
Libs: -L\${libdir} -llockstep
Libs.private: -lbz2 -linih -lm -ldl -pthread
Cflags: -I\${includedir}
PC
}
# MODE FILE FOLDER, one a line
list() {
    echo "755 $build/lockstep bin"
    echo "644 $build/liblockstep.a lib"
    echo "755 $made/liblockstep.so.$version lib"
    [ ! -e "$build/lockstep-mpi.so" ] || echo "755 $build/lockstep-mpi.so lib/lockstep"
    echo "644 $made/lockstep.pc lib/pkgconfig"
    echo "644 include/lockstep.h include"
    for f in include/lockstep/*.h include/lockstep/*/*.h; do echo "644 $f $(dirname "$f")"; done
    # as they lie here, so that the links between them hold
    for f in README.md CHANGELOG.md LICENSE docs/*.md docs/*.svg examples/*.ini examples/*.c $(find bench tests src -name "*.md"); do
        echo "644 $f share/doc/lockstep/$(dirname "$f")"
    done
    for f in "$made"/man/*.1; do echo "644 $f share/man/man1"; done
    echo "644 $made/bash/lockstep share/bash-completion/completions"
    echo "644 $made/zsh/_lockstep share/zsh/site-functions"
}
# Those that only Lockstep has, the innermost first.
folders() {
    list | awk '{ sub(/\/\.$/, "", $3); for (f = $3; f ~ /lockstep/; sub(/\/[^\/]*$/, "", f)) print f }' | sort -ru
}
links() { # TARGET NAME
    echo "liblockstep.so.$version liblockstep.so.$so_version"
    echo "liblockstep.so.$so_version liblockstep.so"
}

mkdir "$made/man" "$made/bash" "$made/zsh"
"$build/lockstep" help --man "$made/man" >/dev/null
"$build/lockstep" help --completion bash >"$made/bash/lockstep"
"$build/lockstep" help --completion zsh >"$made/zsh/_lockstep"
pc >"$made/lockstep.pc"
cp "$build/liblockstep.so" "$made/liblockstep.so.$version"
case $verb in
install)
    list | while read -r mode file folder; do install -D -m "$mode" -t "$root/$folder" "$file"; done
    links | while read -r target name; do ln -sfn "$target" "$root/lib/$name"; done
    [ -n "${DESTDIR:-}" ] || [ "$(id -u)" != 0 ] || ldconfig 2>/dev/null || true # so that programs find the library at once
    ;;
uninstall)
    list | while read -r mode file folder; do rm -f "$root/$folder/${file##*/}"; done
    links | while read -r target name; do rm -f "$root/lib/$name"; done
    for d in $(folders); do
        [ ! -d "$root/$d" ] || rmdir "$root/$d" 2>/dev/null || echo "uninstall: $root/$d holds other files; it stays" >&2
    done
    ;;
*) echo "usage: tools/install.sh install|uninstall BUILD PREFIX VERSION SO_VERSION" >&2 && exit 2 ;;
esac
