#!/bin/bash
# A Docker engine: `engine.sh start|gvisor|stop|status`.
#
# `start` uses the engine that answers (at DOCKER_HOST or the standard socket). Where none does, it installs Debian's packages and
# starts one of its own, as root or by sudo. Exit status 3 means: this machine can't run one; the caller may use plain processes instead.
# `gvisor` installs Debian's runsc, which the engine that `start` started knows as a runtime already.
# `stop` ends only an engine that `start` started itself.
set -u

SELF=$(readlink -f "$0")

STATE=${SKERRY_ENGINE_STATE:-/var/lib/skerry}
PIDFILE=$STATE/engine.pid
LOG=$STATE/engine.log
SETTINGS=/etc/docker/daemon.json
PACKAGES="docker.io iptables iproute2 mmdebstrap busybox-static ca-certificates"
CANNOT=3

say() { printf 'engine: %s\n' "$*" >&2; }
give_up() { say "$*"; exit "$CANNOT"; }

answers() { command -v docker >/dev/null && timeout 10 docker version --format '{{.Server.Version}}' >/dev/null 2>&1; }

# Whoever this is may become root: is root, or sudo lets them (asking for a password only on a terminal).
may_be_root() {
    [ "$(id -u)" = 0 ] && return 0
    command -v sudo >/dev/null || return 1
    sudo -n true 2>/dev/null && return 0
    [ -t 0 ] && sudo -v
}

# CAP_SYS_ADMIN (bit 21): without it dockerd can't mount anything; an unprivileged container's root lacks it.
has_sys_admin() {
    local effective
    effective=$(sed -n 's/^CapEff:\s*//p' /proc/self/status)
    (( (0x$effective >> 21) & 1 ))
}

missing_packages() {
    local package
    for package in $PACKAGES; do
        [ "$(dpkg-query -W -f='${db:Status-Status}' "$package" 2>/dev/null)" = installed ] || printf '%s ' "$package"
    done
}

install_packages() {
    local missing
    missing=$(missing_packages)
    [ -z "$missing" ] && return 0
    command -v apt-get >/dev/null || give_up "there is no Docker engine and no apt-get to install one; install Docker and try again."
    say "installing $missing(about a minute)"
    export DEBIAN_FRONTEND=noninteractive
    # The list may be stale or absent: a failing update is not fatal where the packages are cached.
    apt-get update -qq >"$STATE/apt.log" 2>&1 || say "apt-get update failed; trying with the lists that are there"
    # shellcheck disable=SC2086  # one word for each package
    apt-get install -y -qq --no-install-recommends $missing >>"$STATE/apt.log" 2>&1 && return 0
    tail -n 5 "$STATE/apt.log" >&2
    give_up "apt-get could not install $missing(see $STATE/apt.log)."
}

# A pid alone may be reused: the file holds the pid and the time when that process started.
started_at() { sed 's/.*) //' "/proc/$1/stat" 2>/dev/null | cut -d' ' -f20; }
own_pid() {
    local pid start
    read -r pid start <"$PIDFILE" 2>/dev/null || return 1
    [ -n "${start:-}" ] && [ "$(started_at "$pid")" = "$start" ] && echo "$pid"
}

# A killed dockerd or containerd leaves a pid file that blocks the next one, as does a zombie that nobody collected.
remove_stale_pidfiles() {
    remove_stale_pidfile /var/run/docker.pid dockerd
    remove_stale_pidfile /var/run/docker/containerd/containerd.pid containerd
}

remove_stale_pidfile() {
    local pid
    pid=$(cat "$1" 2>/dev/null) || return 0
    [ "$(sed -n 's/^State:\s*\(.\).*/\1/p' "/proc/$pid/status" 2>/dev/null)" != Z ] &&
        [ "$(cat "/proc/$pid/comm" 2>/dev/null)" = "$2" ] || rm -f "$1"
}

# Where the machine's owner has settings for engines, those. Else gVisor, whether it is installed yet or not: the engine looks for it
# when a container asks for it.
choose_settings() {
    [ ! -e "$SETTINGS" ] || return 0
    SETTINGS=$STATE/daemon.json
    cat >"$SETTINGS" <<'EOF'
{"runtimes": {"runsc": {"path": "/usr/bin/runsc", "runtimeArgs": ["--platform=ptrace", "--network=host", "--oci-seccomp"]}}}
EOF
}

launch() {
    remove_stale_pidfiles
    choose_settings
    say "starting dockerd (log: $LOG)"
    # Without our descriptors and our session, so that it outlives make.
    setsid dockerd --config-file "$SETTINGS" --data-root "$STATE/engine" --live-restore </dev/null >>"$LOG" 2>&1 9>&- &
    local pid=$!
    echo "$pid $(started_at "$pid")" >"$PIDFILE"
    disown "$pid"
    wait_for "$pid"
}

# Until it answers, for at most a minute; at once when it ended.
wait_for() {
    local _
    for _ in $(seq 120); do
        answers && return 0
        if ! kill -0 "$1" 2>/dev/null; then
            rm -f "$PIDFILE"
            grep -E 'level=(error|fatal)|failed to' "$LOG" | tail -n 2 >&2
            give_up "dockerd ended at once (see $LOG); this looks like a machine or container that may not run an engine."
        fi
        sleep 0.5
    done
    give_up "dockerd does not answer after a minute (see $LOG)."
}

start_service() {
    [ -d /run/systemd/system ] && systemctl cat docker.service >/dev/null 2>&1 || return 1
    systemctl start docker && answers
}

start_as_root() {
    has_sys_admin || give_up "no Docker engine answers and this root lacks CAP_SYS_ADMIN, so none can be started here."
    mkdir -p "$STATE"
    exec 9>"$STATE/engine.lock"
    flock 9
    install_packages
    answers || start_service || launch
    say "ready: Docker $(docker version --format '{{.Server.Version}}')"
}

start() {
    answers && return 0
    [ -n "${DOCKER_HOST:-}" ] && give_up "no Docker engine answers at DOCKER_HOST=$DOCKER_HOST; start it, or unset DOCKER_HOST."
    may_be_root || give_up "no Docker engine answers and neither root nor sudo is to be had to start one."
    if [ "$(id -u)" = 0 ]; then start_as_root; else sudo "$SELF" start; fi
}

gvisor() {
    answers || give_up "no Docker engine answers; start one (make engine)."
    docker info --format '{{json .Runtimes}}' | grep -q '"runsc"' || {
        say "the engine that answers knows no runtime runsc: docs/how-to/gvisor.md says what to add to its daemon.json."
        exit 1
    }
    command -v runsc >/dev/null && return 0
    [ "$(id -u)" = 0 ] || { may_be_root && exec sudo "$SELF" gvisor; give_up "neither root nor sudo is to be had to install runsc."; }
    mkdir -p "$STATE"
    PACKAGES=runsc install_packages
}

stop_as_root() {
    local pid
    pid=$(own_pid) || { rm -f "$PIDFILE"; say "none was started by this script."; return 0; }
    kill "$pid"
    tail --pid="$pid" -f /dev/null
    rm -f "$PIDFILE"
    say "stopped."
}

stop() {
    [ -e "$PIDFILE" ] || { say "none was started by this script."; return 0; }
    if [ "$(id -u)" = 0 ]; then stop_as_root; else sudo "$SELF" stop; fi
}

status() {
    answers || { say "no Docker engine answers."; return 1; }
    say "Docker $(docker version --format '{{.Server.Version}}') answers$(own_pid >/dev/null 2>&1 && echo ', started by this script')."
}

case ${1:-} in
    start | gvisor | stop | status) "$1" ;;
    *) echo "usage: $0 start|gvisor|stop|status" >&2; exit 2 ;;
esac
