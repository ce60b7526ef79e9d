#!/usr/bin/env bash
# run: label unit
# Every C file is formatted as .clang-format says.
set -euo pipefail
cd -- "$(dirname -- "${BASH_SOURCE[0]}")/../.."

if [[ -z $(type -P clang-format) ]]; then
    echo "SKIP: there is no clang-format"
    exit 77
fi
version=$(clang-format --version)
if [[ $version != *"version 14."* ]]; then
    echo "SKIP: the format is that of clang-format 14, this is: $version"
    exit 77
fi
mapfile -d '' sources < <(find src launcher tests bench -name '*.[ch]' -print0)
((${#sources[@]} > 20))
printf '%s\0' "${sources[@]}" | xargs -0 clang-format --dry-run -Werror
echo "${#sources[@]} files are formatted"
