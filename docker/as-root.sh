#!/bin/bash
# Run a command as root where that can be had (a node needs it to make isolated containers), else as who we are.
[ "$(id -u)" = 0 ] && exec "$@"
if sudo -n true 2>/dev/null || { [ -t 0 ] && command -v sudo >/dev/null && sudo -v; }; then
    # Root leaves no compiled files in the user's folders when they are there already, for every process.
    [ ! -x .venv/bin/python ] || .venv/bin/python -m compileall -q algorithm-sdk server node proxy examples || true
    exec sudo -E env "PATH=$PATH" PYTHONDONTWRITEBYTECODE=1 "$@"
fi
exec "$@"
