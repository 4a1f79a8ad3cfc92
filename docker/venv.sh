#!/bin/bash
# The virtual environment with skerry and all its extras, editable: `venv.sh PYTHON FOLDER`.
set -euo pipefail

PYTHON=$1
FOLDER=$2

say() { printf 'venv: %s\n' "$*" >&2; }

# Debian ships Python without the part that makes virtual environments.
install_venv() {
    local root=
    [ "$(id -u)" = 0 ] || root="sudo"
    if ! command -v apt-get >/dev/null || { [ -n "$root" ] && ! sudo -n true 2>/dev/null && ! { [ -t 0 ] && sudo -v; }; }; then
        say "$PYTHON can't make virtual environments; ask an administrator to run: apt-get install python3-venv"
        exit 1
    fi
    say "installing python3-venv"
    $root apt-get update -qq >/dev/null 2>&1 || true
    $root env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends python3-venv >/dev/null
}

make_venv() {
    "$PYTHON" -c 'import ensurepip, venv' 2>/dev/null || install_venv
    "$PYTHON" -m venv --clear "$FOLDER"
}

install() {
    local quiet=-q
    [ ! -t 2 ] || quiet= # on a terminal it shows how far it is
    # Behind a company's proxy only the machine's own certificates hold (the second name is the one of older releases).
    export UV_SYSTEM_CERTS=true UV_NATIVE_TLS=true
    # uv installs several times faster, but does not read pip's configuration: where it fails, pip has its turn.
    "$FOLDER/bin/python" -m uv --version >/dev/null 2>&1 || "$FOLDER/bin/python" -m pip install -q --disable-pip-version-check uv
    "$FOLDER/bin/python" -m uv pip install $quiet --compile-bytecode --python "$FOLDER/bin/python" -e '.[dev]' ||
        "$FOLDER/bin/python" -m pip install --disable-pip-version-check $quiet -e '.[dev]'
}

"$FOLDER/bin/python" -m pip --version >/dev/null 2>&1 || { say "making $FOLDER with $("$PYTHON" --version)"; make_venv; }
say "installing skerry and what it needs (a minute or two the first time)"
install
