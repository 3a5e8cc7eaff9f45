# Sourced by the other scripts here: messages, and packages of Debian and Ubuntu.

say() { printf '%s\n' "$*" >&2; }

# Run apt-get as root, by sudo where it asks for no password; fail where neither is possible.
apt_install() {
    local as_root=()
    if [ "$(id -u)" -ne 0 ]; then
        sudo -n true 2>/dev/null || return 1
        as_root=(sudo -n)
    fi
    command -v apt-get >/dev/null 2>&1 || return 1
    say "Installing $* with apt-get …"
    "${as_root[@]}" apt-get update -q >&2 &&
        "${as_root[@]}" env DEBIAN_FRONTEND=noninteractive apt-get install -q -y --no-install-recommends "$@" >&2
}
