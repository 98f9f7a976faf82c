#!/bin/sh
# The README's three commands, and `down`: what `make demo` runs.
set -eu
say() {
    shown=
    for word; do
        case $word in *" "*) word="\"$word\"" ;; esac
        shown="$shown $word"
    done
    printf '\n\033[1m$%s\033[0m\n' "$shown"
    "$@"
}

run=$(mktemp -d)/python
trap 'rayrnn down' EXIT

say rayrnn up
say rayrnn train python --out "$run"
say rayrnn generate "$run" --prime "def " --length 500 --temperature 0.7 --seed 4
