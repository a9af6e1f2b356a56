#!/bin/sh
# Sees to it that the tests find a PgBouncer: the system's, else installed by its package manager.
# Prints where it is; fails where there is none and no way to get one. Only tests need it.
set -eu

# Debian's place for it is not on everybody's PATH.
PATH=$PATH:/usr/sbin:/usr/local/sbin

say() { echo "pgbouncer.sh: $*" >&2; }

as_root() {
    if [ "$(id -u)" = 0 ]; then "$@"; else sudo -n "$@"; fi
}

may_install() {
    [ -z "${ROWLOCK_SETUP_HIDE_SYSTEM:-}" ] && { [ "$(id -u)" = 0 ] || sudo -n true 2>/dev/null; }
}

# The package would run a pooler of its own on every start of the machine.
install_by_apt() {
    apt="env DEBIAN_FRONTEND=noninteractive apt-get -q -y --no-install-recommends"
    as_root $apt install pgbouncer || { as_root $apt update && as_root $apt install pgbouncer; } || return 1
    if command -v systemctl; then as_root systemctl disable --now pgbouncer || true; fi
}

install_it() {
    if command -v apt-get; then say "installing pgbouncer by apt"; install_by_apt
    elif command -v dnf; then say "installing pgbouncer by dnf"; as_root dnf -y install pgbouncer
    elif command -v apk; then say "installing pgbouncer by apk"; as_root apk add pgbouncer
    else return 1
    fi >&2
}

if ! command -v pgbouncer >/dev/null && may_install; then
    install_it || true
elif ! command -v pgbouncer >/dev/null && command -v brew >/dev/null && [ "$(id -u)" != 0 ]; then
    say "installing pgbouncer by brew"
    brew install pgbouncer >&2 || true
fi
command -v pgbouncer || { say "no pgbouncer found, and no way to install one"; exit 1; }
