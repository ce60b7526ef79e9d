#!/usr/bin/env bash
# run: label unit timeout 180
# launcher/bcop-launch around a program that only records what it gets.
set -euo pipefail
root=$(cd -- "$(dirname -- "${BASH_SOURCE[0]}")/../.." && pwd -P)
launch=$root/launcher/bcop-launch

folder=$(mktemp -d)
trap 'rm -rf -- "$folder"' EXIT
mkdir "$folder/a bin"
export BCOP="$folder/a bin/recorder" RECORDS="$folder"
cat >"$BCOP" <<'END'
#!/bin/bash
# What the ranks of this program see goes to $RECORDS/<name>.<rank>; see the test below.
set -u
rank=${OMPI_COMM_WORLD_RANK-none}
printf '%s\n' "$TMPDIR" >"$RECORDS/tmpdir.$rank"
stop() { # like bcop: a stop file means that a person asked
    local code=75
    [[ ! -e $BCOP_STOP_FILE ]] || code=79
    echo "$code" >"$RECORDS/stopped.$rank"
    exit "$code"
}
case ${1-} in
args)
    printf '%s\n' "$#" >"$RECORDS/args.$rank"
    printf '<%s>\n' "$@" >>"$RECORDS/args.$rank"
    ;;
env) printf '%s %s %s\n' "$OPENBLAS_NUM_THREADS" "$OMP_NUM_THREADS" "${BCOP_EXAMPLE-}" >"$RECORDS/env.$rank" ;;
exit) exit "$2" ;;
polite | deaf)
    trap 'exit 4' INT # the terminal's Ctrl-C must not come here
    if [[ $1 == polite ]]; then trap stop USR1; else trap '' USR1 TERM; fi
    echo "$$" >"$RECORDS/ready.$rank"
    for ((i = 0; i < 300; i++)); do sleep 0.1; done
    exit 5
    ;;
esac
END
chmod +x "$BCOP"

failures=0
fail() {
    echo "FAILED: $*"
    failures=$((failures + 1))
}

# run WANTED ARGS...: the launcher's exit code, and no folder of its own left behind.
run() {
    local wanted=$1 code=0
    shift
    "$launch" "$@" >"$folder/out" 2>&1 </dev/null || code=$?
    ((code == wanted)) || fail "'$*' gave $code, not $wanted: $(cat "$folder/out")"
    check_cleanup "$*"
}

check_cleanup() {
    local record path
    for record in "$folder"/tmpdir.*; do
        [[ -f $record ]] || continue
        path=$(cat "$record")
        [[ $path != "${TMPDIR:-/tmp}" ]] || fail "$1: the ranks' TMPDIR is not a private one"
        [[ ! -e $path ]] || fail "$1: $path was left behind"
        rm -f "$record"
    done
}

# signalled WANTED PROGRAM SIGNAL...: starts the launcher as a terminal does, in a process group of
# its own, and sends the whole group the signals, a second apart.
signalled() {
    local wanted=$1 program=$2 code=0 pid rank
    shift 2
    rm -f "$folder"/ready.* "$folder"/stopped.*
    set -m
    "$launch" -n 2 -- "$program" >"$folder/out" 2>&1 </dev/null &
    pid=$!
    set +m
    for rank in 0 1; do
        for ((i = 0; i < 100; i++)); do
            [[ ! -s $folder/ready.$rank ]] || break
            sleep 0.1
        done
    done
    for signal in "$@"; do
        kill "-$signal" -- "-$pid" || fail "$program $*: it ended before $signal"
        sleep 1
    done
    wait "$pid" || code=$?
    ((code == wanted)) || fail "$program $*: $code, not $wanted: $(cat "$folder/out")"
    [[ $program == deaf ]] || grep -qxs -- "$wanted" "$folder"/stopped.* ||
        fail "$program $*: the ranks took it for another kind of stop"
    check_cleanup "$program $*"
    for rank in 0 1; do
        ! kill -0 "$(cat "$folder/ready.$rank")" 2>/dev/null || is_zombie "$rank" ||
            fail "$program $*: rank $rank is still there"
    done
}

# An ended rank may wait for a parent that does not collect it (process 1 of a container).
is_zombie() { grep -qs '^State:.Z' "/proc/$(cat "$folder/ready.$1")/status"; }

# Arguments come out as they went in.
# shellcheck disable=SC2016  # a dollar sign must stay one
words=('a b' "it's" '"q"' '$HOME' '*' '' '--x=1;2' 'a\b' $'two\nlines' -n --help)
run 0 -n 2 -- args "${words[@]}"
expected=$(printf '%s\n' "$((${#words[@]} + 1))" && printf '<%s>\n' args "${words[@]}")
for rank in 0 1; do
    [[ $(cat "$folder/args.$rank") == "$expected" ]] ||
        fail "rank $rank got the arguments $(cat "$folder/args.$rank")"
done

# Exit codes, with fewer and more ranks than this machine has cores.
for code in 0 64 75 78; do
    run "$code" -n 2 exit "$code"
done
run 78 -n "$(($(nproc) + 1))" exit 78
run 64 -n 0 exit 0
run 64 -n 2x exit 0
run 64 --bogus exit 0
run 64
run 0 --help
BCOP="$folder/none" run 66 -n 1 exit 0

# Threads and the user's BCOP_* variables; an environment with nothing in it.
BCOP_EXAMPLE='x y' run 0 -n 1 --threads 2 env
[[ $(cat "$folder/env.0") == "2 2 x y" ]] || fail "the environment is $(cat "$folder/env.0")"
env -i BCOP="$BCOP" RECORDS="$RECORDS" "$launch" -n 1 env || fail "it needs an environment"
[[ $(cat "$folder/env.0") == "1 1 " ]] || fail "the plain environment is $(cat "$folder/env.0")"

# Without $BCOP the program beside the script is found, through a link too.
cp -- "$launch" "$folder/a bin/"
cp -- "$BCOP" "$folder/a bin/bcop"
ln -s -- "$folder/a bin/bcop-launch" "$folder/link"
code=0
env -u BCOP "$folder/link" -n 1 exit 75 || code=$?
((code == 75)) || fail "the program beside a linked launcher gave $code, not 75"

signalled 75 polite USR1
signalled 75 polite HUP
signalled 79 polite INT
signalled 79 polite TERM
signalled 130 deaf INT INT
signalled 143 deaf TERM TERM

echo "$failures failures"
((failures == 0))
