#!/bin/bash
# Run a command as root where that can be had (a node needs it to make isolated containers), else as who we are.
[ "$(id -u)" = 0 ] && exec "$@"
if sudo -n true 2>/dev/null || { [ -t 0 ] && command -v sudo >/dev/null && sudo -v; }; then
    # Nothing compiled by root is left in the user's folders.
    exec sudo -E env "PATH=$PATH" PYTHONDONTWRITEBYTECODE=1 "$@"
fi
exec "$@"
