#!/usr/bin/env bash
# Renew requirements/*.txt from pyproject.toml: every package pinned, with the hashes of all its files, so that one
# lock serves every Python and machine that the packages themselves serve. Takes some minutes.
set -euo pipefail
cd "$(dirname "$0")/.."
if [ -z "${LOCK_WITH:-}" ]; then
    [ -x .venvs/lock/bin/pip-compile ] || {
        .venv/bin/python -m venv .venvs/lock
        .venvs/lock/bin/pip install -q 'pip-tools>=7.6'
    }
    LOCK_WITH=.venvs/lock/bin/pip-compile
fi
compile=("$LOCK_WITH" -q --generate-hashes --strip-extras --no-header
    --no-emit-index-url --no-emit-trusted-host --no-emit-find-links)
"${compile[@]}" --allow-unsafe -o requirements/build.txt requirements/build.in
"${compile[@]}" -o requirements/runtime.txt pyproject.toml
"${compile[@]}" --extra test -c requirements/runtime.txt -o requirements/test.txt pyproject.toml
if grep -nE '(file|https?)://|^-|@ ' requirements/*.txt; then
    echo "A lock file names a host or a place of this machine; see above." >&2
    exit 1
fi
