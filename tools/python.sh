#!/bin/sh
# Makes a virtual environment of Python packages: python.sh FOLDER REQUIREMENTS. Installs Python and
# its venv module by the package manager where they are missing.
set -eu
folder=$1
requirements=$2

as_root() {
    if [ "$(id -u)" = 0 ]; then "$@"; else sudo -n "$@"; fi
}

# The module may be there without what it needs, so it is asked to make one.
works() {
    python3 -m venv --clear "$folder" >/dev/null 2>&1 && "$folder/bin/pip" --version >/dev/null 2>&1
}

install_it() {
    if command -v apt-get; then
        apt="env DEBIAN_FRONTEND=noninteractive apt-get -q -y --no-install-recommends"
        as_root $apt install python3-venv || { as_root $apt update && as_root $apt install python3-venv; }
    elif command -v dnf; then as_root dnf -y install python3
    elif command -v apk; then as_root apk add python3
    elif command -v brew; then brew install python3
    else return 1
    fi >&2
}

if ! works; then
    echo "python.sh: installing Python's venv" >&2
    install_it || true
    works || { echo "python.sh: no Python with venv, and no way to install it" >&2; exit 1; }
fi
"$folder/bin/pip" install --quiet --disable-pip-version-check --requirement "$requirements"
