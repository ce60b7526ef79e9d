#!/usr/bin/env bash
# run: label unit timeout 400
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
restarts) # whether it is told that it goes on; ends with 75
    echo "$BCOP_RESTART" >>"$RECORDS/restarts.$rank"
    [[ $rank != 0 && ${3-} != logged || ${3-} == refused ]] || echo "{\"kind\": \"start\", \"job\": \"71\", \"step\": $RANDOM}" >>"$2/attempts.jsonl"
    exit 75
    ;;
# The codes of one start after another; the last one stays. "kill": one rank kills itself.
codes)
    start=$(($(cat "$RECORDS/starts.$rank" 2>/dev/null || echo 0) + 1))
    echo "$start" >"$RECORDS/starts.$rank"
    shift "$((start < $# ? start : $# - 1))"
    [[ $1 != kill ]] || { ((rank == 1)) && kill -KILL "$$" || sleep 20; }
    exit "$1"
    ;;
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

# Restarts: after a killed rank, a hang and 75, as often as allowed; not after a person's stop or an
# error of the run itself.
# starts WANTED_CODE WANTED_STARTS OPTIONS... -- CODES...
starts() {
    local wanted=$2 made
    rm -f "$folder"/starts.*
    run "$1" -n 2 "${@:3}"
    made=$(cat "$folder/starts.0")
    ((made == wanted)) || fail "'${*:3}' started $made times, not $wanted"
}
starts 0 3 --retries 2 -- codes kill 75 0
starts 0 2 --retries 5 codes 81 0
starts 75 2 --retries 1 codes 75 75 0
starts 75 1 -- codes 75 0
starts 79 1 --retries 5 codes 79 0
starts 78 1 --retries 5 codes 78 0
starts 80 1 --retries 5 codes 80 0
starts 137 1 -- codes kill 0
[[ $(cat "$folder/out") == *"a rank was killed by signal 9 (KILL)"* ]] ||
    fail "it does not say that a rank was killed: $(cat "$folder/out")"
run 64 --retries x exit 0

# Three starts from one step are enough, in this run directory and in no other.
mkdir "$folder/a run"
printf '{"kind":"start","attempt":%d,"step":%d}\n' 1 0 2 40 3 40 >"$folder/a run/attempts.jsonl"
starts 0 2 --retries 5 -- codes 75 0 --run "$folder/a run" 0
printf '{"kind":"start","attempt":4,"step":40}\n' >>"$folder/a run/attempts.jsonl"
starts 75 1 --retries 5 -- codes 75 75 "--run=$folder/a run" 0
starts 0 2 --retries 5 -- codes 75 0 --run "$folder/another" 0

# A link of a chain: what a person stopped stays stopped.
printf '{"kind":"end","attempt":4,"code":75}\n' >>"$folder/a run/attempts.jsonl"
starts 0 1 --link 5 -- codes 0 --run "$folder/a run" 0
printf '{"kind":"start","step":9}\n{"kind":"end","code":79}\n' >>"$folder/a run/attempts.jsonl"
run 79 --link 5 -- codes 0 --run "$folder/a run"
run 64 --link x -- codes 0

# Later starts of a run are told so, for --resume FILE and never hold of the first one alone.
# restarts WANTED: what two ranks were told, start by start
restarts() {
    local rank
    for rank in 0 1; do
        [[ $(tr -d '\n' <"$folder/restarts.$rank") == "$1" ]] ||
            fail "$2: rank $rank was told $(cat "$folder/restarts.$rank"), not $1"
        rm "$folder/restarts.$rank"
    done
}
mkdir "$folder/told"
run 75 -n 2 --retries 2 -- restarts "$folder/told" --run "$folder/told"
restarts 011 "retries"
run 75 -n 2 --retries 1 -- restarts "$folder/told" refused --run "$folder/told"
restarts 00 "a start that was refused"
run 75 -n 2 --retries 1 -- restarts "$folder/told"
restarts 01 "a run whose folder the launcher does not know"

# In the pause before a restart a signal ends the launcher.
for signal in INT:79 TERM:79 USR1:75; do
    rm -f "$folder"/starts.* "$folder/out"
    set -m # else it could not trap INT
    "$launch" -n 1 --retries 5 -- codes 75 75 75 75 75 0 >"$folder/out" 2>&1 </dev/null &
    pid=$!
    set +m
    for ((i = 0; i < 200; i++)); do
        ! grep -qs 'starting again in 2' "$folder/out" || break
        sleep 0.1
    done
    kill "-${signal%:*}" "$pid"
    code=0
    wait "$pid" || code=$?
    ((code == ${signal#*:})) || fail "${signal%:*} in the pause gave $code: $(cat "$folder/out")"
    check_cleanup "a pause"
done

# In a SLURM job (its commands recorded): srun, and requeueing.
mkdir "$folder/slurm"
cat >"$folder/slurm/srun" <<'END'
#!/bin/bash
printf '<%s>' "$@" >>"$RECORDS/srun"
while [[ $1 == -* ]]; do [[ $1 == -n ]] && shift; shift; done
exec "$@"
END
cat >"$folder/slurm/scontrol" <<'END'
#!/bin/bash
echo "$*" >>"$RECORDS/scontrol"
[[ $1 != show ]] || echo "JobId=71 JobName=x JobState=$STATE Reason=None"
END
# As when SLURM's TERM, which all processes of a requeued job get, comes in the middle of it.
cat >"$folder/slurm/rm" <<'END'
#!/bin/bash
[[ -z ${BCOP_STOP_FILE-} ]] || kill -TERM "$$"
exec /bin/rm "$@"
END
chmod +x "$folder/slurm/"*
# in_job RESTARTS WANTED_CODE WANTED_REQUEUES ARGS...
in_job() {
    local wanted=$3 made=0
    rm -f "$folder/scontrol" "$folder/srun" "$folder"/starts.*
    PATH=$folder/slurm:$PATH SLURM_JOB_ID=71 SLURM_RESTART_COUNT=$1 run "$2" "${@:4}"
    [[ ! -e $folder/scontrol ]] || made=$(grep -cx 'requeue 71' "$folder/scontrol") || true
    ((made == wanted)) || fail "'${*:4}' requeued $made times, not $wanted"
}
in_job 0 75 1 --by srun -n 3 --requeue 2 --threads 2 --bind core -- exit 75
grep -qF -e '<--mpi=pmix><--input=none><--wait=10><--cpus-per-task=2><--cpu-bind=cores><-n><3>' "$folder/srun" ||
    fail "srun got $(cat "$folder/srun")"
in_job 2 75 0 --by srun --requeue 2 -- exit 75
in_job 0 79 0 --by srun --requeue 2 -- exit 79
SLURM_ARRAY_JOB_ID=70 SLURM_ARRAY_TASK_ID=3 in_job 0 75 0 --by srun --requeue 2 -- exit 75
grep -qx 'requeue 70_3' "$folder/scontrol" || fail "a task of an array: $(cat "$folder/scontrol")"
in_job 0 205 1 --by srun --requeue 2 -- exit 205
in_job 0 78 0 --by srun --requeue 2 -- exit 78
# Five starts in a row, over restarts, that left no line in the run's log are enough; a new job counts anew.
mkdir "$folder/nowhere"
for restarts in 0 1 2 3; do
    in_job "$restarts" 205 1 --by srun --requeue 99 -- exit 205 --run "$folder/nowhere"
done
in_job 4 205 0 --by srun --requeue 99 -- exit 205 --run "$folder/nowhere"
in_job 0 205 1 --by srun --requeue 99 -- exit 205 --run "$folder/nowhere"
echo 4 >"$folder/nowhere/lost_starts"
in_job 60 75 1 --by srun --requeue 99 -n 1 -- restarts "$folder/nowhere" logged --run "$folder/nowhere"
rm -f "$folder"/restarts.*
in_job 0 0 0 --by srun --requeue 2 --retries 2 -- codes 137 137 0
in_job 0 137 1 --by srun --requeue 2 --retries 1 -- codes 137 137 0
# A requeued job, or a later link of a chain, goes on with what this job or chain began (the records
# say job 71), not with another's.
in_job 0 75 1 --by srun -n 1 --requeue 2 -- restarts "$folder/told" --run "$folder/told"
in_job 1 75 1 --by srun -n 1 --requeue 2 -- restarts "$folder/told" --run "$folder/told"
in_job 1 75 1 --by srun -n 1 --requeue 2 -- restarts "$folder/told" --run "$folder/another"
in_job 0 75 0 --by srun -n 1 --link 70 -- restarts "$folder/told" --run "$folder/told"
in_job 0 75 0 --by srun -n 1 --link 72 -- restarts "$folder/told" --run "$folder/told"
[[ $(tr -d '\n' <"$folder/restarts.none") == 01010 ]] ||
    fail "jobs were told $(cat "$folder/restarts.none")"

# TERM in a batch job is SLURM's: the ranks are to end with 75, and the launcher asks for a requeue
# unless SLURM has taken the job away (cancelled, preempted).
for state in RUNNING:1 CANCELLED:0; do
    rm -f "$folder/scontrol" "$folder"/ready.* "$folder"/stopped.*
    PATH=$folder/slurm:$PATH SLURM_JOB_ID=71 SLURMD_NODENAME=n1 STATE=${state%:*} \
        "$launch" --by srun --requeue 2 -- polite >"$folder/out" 2>&1 </dev/null &
    pid=$!
    for ((i = 0; i < 200; i++)); do
        [[ ! -s $folder/ready.none ]] || break
        sleep 0.1
    done
    kill -TERM "$pid"
    code=0
    wait "$pid" || code=$?
    made=$(grep -cx 'requeue 71' "$folder/scontrol") || true
    stopped=$(cat "$folder/stopped.none")
    ((code == 75 && made == ${state#*:} && stopped == 75)) ||
        fail "TERM in a job that is ${state%:*}: $code, $made requeues: $(cat "$folder/out")"
    check_cleanup "TERM in a job"
done
mkdir "$folder/stuck"
printf '{"kind":"start","step":7}\n%.0s' 1 2 3 >"$folder/stuck/attempts.jsonl"
in_job 0 75 0 --by srun --requeue 2 -- exit 75 --run "$folder/stuck"
run 64 --requeue 1 exit 0
run 64 --by srun exit 0
run 64 --bind everywhere exit 0
run 66 --hostfile "$folder/none" exit 0

echo "$failures failures"
((failures == 0))
