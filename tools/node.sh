#!/usr/bin/env bash
# Make .venvs/javascript hold the locked packages of the JavaScript clients that the tests run, and print its path.
#
# Node.js and npm come from the system; where they are missing, Debian's and Ubuntu's are installed. A stamp carries
# the hash of the lock and of the Node.js it was made with, so a second call costs some milliseconds.
set -euo pipefail
cd "$(dirname "$0")/.."
. tools/apt.sh

from=tests/clients/javascript
home=.venvs/javascript
oldest=18

node_is_there() {
    command -v node >/dev/null 2>&1 && command -v npm >/dev/null 2>&1 &&
        node -e "process.exit(parseInt(process.versions.node) < $oldest ? 1 : 0)"
}

node_is_there || apt_install nodejs npm || true
node_is_there || {
    say "The tests of LangSmith's JavaScript client need Node.js $oldest or newer and npm."
    say "Install them (Debian 12, Ubuntu 24.04: apt-get install nodejs npm), then run this again."
    exit 1
}

stamp=$home/.made-$({ cat "$from/package-lock.json"; node --version; } | sha256sum | cut -c1-24)
[ -e "$stamp" ] || {
    say "Installing the locked packages of $from …"
    rm -rf "$home"
    mkdir -p "$home"
    cp "$from/package.json" "$from/package-lock.json" "$home"
    npm ci --prefix "$home" --ignore-scripts --no-audit --no-fund --loglevel=error >&2
    touch "$stamp"
}
printf '%s\n' "$PWD/$home"
