#!/usr/bin/env bash
# run: label unit
# An installed bcop works from another folder, with nothing but what was installed.
set -euo pipefail

folder=$(mktemp -d)
trap 'rm -rf -- "$folder"' EXIT
prefix="$folder/a prefix"
cmake --install "$BCOP_BUILD_DIR" --prefix "$prefix" >"$folder/log" 2>&1 || {
    cat "$folder/log"
    exit 1
}

# The installed launcher must find the installed program by itself.
unset BCOP BCOP_SOURCE_DIR BCOP_BUILD_DIR
bcop=$prefix/bin/bcop
config=$prefix/share/bcop/configs/synthetic.yaml
mkdir "$folder/elsewhere"
cd "$folder/elsewhere"

version=$("$bcop" --version)
grep -q '^bcop [0-9]' <<<"$version" || { echo "--version says: $version" && exit 1; }
reference=$("$bcop" reference)
for section in data input model loss ortho optimizer schedule train evaluate checkpoint; do
    grep -q "^$section:" <<<"$reference" || { echo "reference: no section $section" && exit 1; }
done
"$bcop" train "$config" --dry-run
"$prefix/bin/bcop-launch" -n 2 -- train "$config" --dry-run
left=$(ls -A)
[[ -z $left ]] || { echo "a dry run wrote: $left" && exit 1; }
for file in share/doc/bcop/README.md share/doc/bcop/LICENSE; do
    [[ -s $prefix/$file ]] || { echo "$file was not installed" && exit 1; }
done
