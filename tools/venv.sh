#!/usr/bin/env bash
# Make .venv hold what `runtime` or `test` needs, and nothing to do if it already does.
#
# The lock files name every package with its hashes. A stamp file inside the environment carries the hash of the
# lock it was made from, so a second call costs some milliseconds.
set -euo pipefail
cd "$(dirname "$0")/.."

kind=${1:?usage: tools/venv.sh runtime|test}
venv=.venv
lock=requirements/$kind.txt

. tools/apt.sh

find_python() {
    local candidate
    for candidate in ${PYTHON:-} python3 python3.13 python3.12 python3.11; do
        if command -v "$candidate" >/dev/null 2>&1 &&
            "$candidate" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then
            printf '%s\n' "$candidate"
            return 0
        fi
    done
    return 1
}

make_venv() {
    local python
    if ! python=$(find_python); then
        apt_install python3 python3-venv || true
        python=$(find_python) || {
            say "Clearspan needs Python 3.11 or newer. Install it (Debian, Ubuntu: apt-get install python3 python3-venv)"
            say "or name it: make PYTHON=/path/to/python3.12 …"
            exit 1
        }
    fi
    if ! "$python" -c 'import ensurepip, venv' 2>/dev/null; then
        local version
        version=$("$python" -c 'import sys; print("python%d.%d-venv" % sys.version_info[:2])')
        apt_install "$version" || apt_install python3-venv || {
            say "$python has no venv module. Install it first (Debian, Ubuntu: apt-get install $version)."
            exit 1
        }
    fi
    say "Making $venv with $("$python" --version) …"
    "$python" -m venv --clear "$venv"
}

# The stamp covers the environment's place too: a copied or moved one does not work.
stamp_of() { { pwd; cat requirements/build.txt "$1" pyproject.toml; } | sha256sum | cut -c1-24; }

stamp=$venv/.$kind-$(stamp_of "$lock")
[ -e "$stamp" ] && exit 0
# What the tests need includes what the server needs.
[ "$kind" = runtime ] && [ -e "$venv/.test-$(stamp_of requirements/test.txt)" ] && exit 0

"$venv/bin/python" -c '' 2>/dev/null && [ -x "$venv/bin/pip" ] && [ -e "$venv/.made-$(pwd | sha256sum | cut -c1-24)" ] || {
    make_venv
    touch "$venv/.made-$(pwd | sha256sum | cut -c1-24)"
}
rm -f "$venv/.$kind-"*
say "Installing the locked packages of $lock …"
pip=("$venv/bin/python" -m pip --disable-pip-version-check -q)
"${pip[@]}" install --require-hashes --no-deps -r requirements/build.txt -r "$lock"
"${pip[@]}" install --no-deps --no-build-isolation -e .
touch "$stamp"
