#!/usr/bin/env bash
# run: label unit
# Every shell script passes shellcheck, stops at errors, and does without eval.
set -euo pipefail
cd -- "$(dirname -- "${BASH_SOURCE[0]}")/../.."

if [[ -z $(type -P shellcheck) ]]; then
    echo "SKIP: there is no shellcheck"
    exit 77
fi
scripts=()
while IFS= read -r -d '' file; do
    IFS= read -r first <"$file" || true
    [[ $first =~ ^'#!'.*[/\ ](ba)?sh($|\ ) ]] && scripts+=("$file")
done < <(find . \( -path ./.git -o -path ./build -o -path ./data -o -path ./checkpoints \
    -o -path ./tests/fuzz/corpus \) -prune -o -type f -print0)

failed=0
for expected in ./.ci/run ./launcher/setup "./tests/tree/${BASH_SOURCE[0]##*/}"; do
    [[ " ${scripts[*]} " == *" $expected "* ]] || { echo "$expected was not found" && failed=1; }
done
shellcheck "${scripts[@]}" || failed=1
for file in "${scripts[@]}"; do
    grep -qx 'set -euo pipefail' "$file" || { echo "$file: no 'set -euo pipefail'" && failed=1; }
    # At the start of a command, so that the word may stand in a message or an option.
    if grep -nE '(^|[;&|({]|\b(then|do|else))[[:space:]]*eval[[:space:]]' "$file"; then
        echo "$file: eval"
        failed=1
    fi
done
echo "${#scripts[@]} scripts"
exit "$failed"
