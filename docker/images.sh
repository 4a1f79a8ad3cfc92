#!/bin/bash
# Build skerry's images: `images.sh [holder|algorithm-base|probe|server|proxy|node]…`, those that algorithms need when none is named.
#
# An image is built again only when what it is made of changed. It starts from `python:3.11-slim` where a registry answers, and from
# Debian packages (debian-python.sh) where none does; BASE=<image> in the environment chooses another.
set -euo pipefail
# Whoever runs in an image must be able to read it, whatever the caller's files are like.
umask 022

HERE=$(cd "$(dirname "$(readlink -f "$0")")" && pwd)
ROOT=$(dirname "$HERE")
WORK=$ROOT/build/images
PYTHON=${PYTHON:-$ROOT/.venv/bin/python}
VPN_PROGRAMS="wireguard-go nftables"
VPN_LIBRARIES="libnftables1 libnftnl11 libmnl0 libjansson4 libgmp10 libxtables12 libedit2 libbsd0 libmd0 libtinfo6"
VERSION=$(sed -n 's/^version = //p' "$ROOT/setup.cfg")
# The builder that every engine has; buildx where it is installed.
docker buildx version >/dev/null 2>&1 || export DOCKER_BUILDKIT=0

say() { printf 'images: %s\n' "$*" >&2; }
fail() { say "$*"; exit 1; }

# One hash over the names and contents of files and folders.
digest() { (cd "$ROOT" && find "$@" -type f -not -path '*/__pycache__/*' -print0 | sort -z | xargs -0 sha256sum | sha256sum | cut -c1-32); }
built_from() { docker image inspect -f '{{index .Config.Labels "skerry.inputs"}}' "$1" 2>/dev/null || true; }

# Sets BASE: the image with Python that the others start from. The engine knows its registry, or the mirror of it.
choose_base() {
    [ -n "${BASE:-}" ] && return
    if docker image inspect python:3.11-slim >/dev/null 2>&1 || timeout 90 docker pull -q python:3.11-slim >/dev/null 2>&1; then
        BASE=python:3.11-slim
    else
        BASE=skerry/python:3.11
        debian_base
    fi
}

debian_base() {
    local inputs
    inputs=$(digest docker/debian-python.sh)
    [ "$(built_from "$BASE")" = "$inputs" ] && return
    command -v mmdebstrap >/dev/null || fail "no image registry answers and mmdebstrap is missing; run: apt-get install mmdebstrap"
    [ "$(id -u)" = 0 ] || fail "no image registry answers, and making a base image from Debian packages needs root; use sudo."
    say "no image registry answers: making $BASE from Debian packages (10 s)"
    "$HERE/debian-python.sh" "$BASE" "skerry.inputs=$inputs"
}

# Wheels for the image's Python, whatever runs here. uv where there is one: it takes seconds.
fetch_wheels() {
    local into=$1 wanted
    shift
    wanted=$(mktemp)
    "$PYTHON" "$HERE/requirements.py" "$ROOT/setup.cfg" "$@" >"$wanted"
    rm -rf "$into"
    "$PYTHON" -m uv pip install -q --target "$into" --python-version 3.11 --python-platform "$(uname -m)-manylinux_2_28" \
        --only-binary :all: -r "$wanted" 2>/dev/null ||
        "$PYTHON" -m pip install -q --target "$into" --python-version 3.11 --platform "manylinux_2_28_$(uname -m)" \
            --platform "manylinux2014_$(uname -m)" --only-binary :all: -r "$wanted"
    rm -rf "$wanted" "$into/bin" "$into"/{pandas,numpy,pyarrow}/tests "$into/pyarrow/include"
}

# skerry's own packages as an installed wheel has them, without those that the image does not need.
unpack_skerry() {
    local into=$1 tree=$WORK/tree package
    shift
    rm -rf "$tree" "$into" && mkdir -p "$tree" "$into"
    (cd "$ROOT" && tar -c --exclude=__pycache__ --exclude='*.egg-info' setup.cfg pyproject.toml README.md LICENSE algorithm-sdk server node proxy) |
        tar -x -C "$tree"
    "$PYTHON" -m uv build -q --wheel --out-dir "$tree/dist" "$tree" 2>/dev/null ||
        "$PYTHON" -m pip wheel -q --no-deps -w "$tree/dist" "$tree"
    "$PYTHON" -m zipfile -e "$tree"/dist/*.whl "$into"
    for package in skerry_server skerry_node skerry_proxy; do
        [[ " $* " == *" $package "* ]] || rm -rf "${into:?}/$package"
    done
    rm -rf "$tree"
}

# What a node needs for its runs' VPN, with the libraries that it is made for: they go beside those of the image, whose age may differ.
fetch_vpn() {
    local into=$1 fetched package
    fetched=$(mktemp -d)
    rm -rf "$into" && mkdir -p "$into/lib"
    # shellcheck disable=SC2086  # words
    if (cd "$fetched" && apt-get download -qq -o APT::Sandbox::User=root $VPN_PROGRAMS $VPN_LIBRARIES) >/dev/null 2>&1; then
        for package in "$fetched"/*.deb; do dpkg-deb --extract "$package" "$fetched/root"; done
        install -m 0755 "$fetched/root/usr/bin/wireguard-go" "$fetched/root/usr/sbin/nft" "$into/"
        find "$fetched/root" -name 'lib*.so.*' -exec cp -L {} "$into/lib/" \;
    else
        say "skerry/node will have no VPN: wireguard-go and nftables come from Debian's packages (apt-get update, then again)"
    fi
    rm -rf "$fetched"
}

# build_python IMAGE EXTRAS PACKAGES [BASE]
build_python() {
    local name=$1 extras=$2 packages=$3 context=$WORK/$1 inputs
    # shellcheck disable=SC2086  # words
    inputs=$(digest "docker/$name.Dockerfile" docker/images.sh docker/debian-python.sh docker/requirements.py docker/settle.py setup.cfg $(folders $packages))
    [ "$(built_from "skerry/$name:$VERSION")" = "$inputs" ] && { say "skerry/$name is up to date"; return; }
    [ -n "${4:-}" ] || choose_base
    say "building skerry/$name"
    # shellcheck disable=SC2086
    fetch_wheels "$context/lib" $extras
    # shellcheck disable=SC2086
    unpack_skerry "$context/app" $packages
    cp "$HERE/settle.py" "$context/"
    [ "$name" != node ] || fetch_vpn "$context/vpn"
    build "$name" "$inputs" "$context" --build-arg "BASE=${4:-$BASE}"
    rm -rf "$context"
}

folders() {
    local package
    for package in "$@"; do
        case $package in
            skerry) echo algorithm-sdk/skerry ;;
            *) echo "${package#skerry_}/$package" ;;
        esac
    done
}

# build IMAGE INPUTS CONTEXT [OPTION]…
build() {
    local name=$1 inputs=$2 context=$3 log=$WORK/$1.log before
    shift 3
    before=$(docker image inspect -f '{{.Id}}' "skerry/$name:latest" 2>/dev/null || true)
    docker build -f "$HERE/$name.Dockerfile" --label "skerry.inputs=$inputs" -t "skerry/$name:$VERSION" -t "skerry/$name:latest" "$@" \
        "$context" >"$log" 2>&1 || { tail -n 20 "$log" >&2; fail "skerry/$name could not be built (the whole log: $log)"; }
    # The one that it replaces goes, unless a container or another image stands on it.
    [ -z "$before" ] || docker rmi "$before" >/dev/null 2>&1 || true
}

build_holder() {
    local inputs context=$WORK/holder
    inputs=$(digest docker/holder.Dockerfile docker/hold.sh)
    [ "$(built_from "skerry/holder:$VERSION")" = "$inputs" ] && { say "skerry/holder is up to date"; return; }
    say "building skerry/holder"
    mkdir -p "$context"
    cp "$HERE/hold.sh" "$context/"
    static_busybox "$context/busybox"
    build holder "$inputs" "$context"
    rm -rf "$context"
}

# The base image with another command: made again when that is.
build_probe() {
    local inputs context=$WORK/probe
    inputs=$(digest docker/probe.Dockerfile)-$(docker image inspect -f '{{slice .Id 7 39}}' "skerry/algorithm-base:$VERSION")
    [ "$(built_from "skerry/probe:$VERSION")" = "$inputs" ] && { say "skerry/probe is up to date"; return; }
    say "building skerry/probe"
    mkdir -p "$context"
    build probe "$inputs" "$context" --build-arg "BASE=skerry/algorithm-base:$VERSION"
    rm -rf "$context"
}

# Debian's busybox-static, or the one of the well-known image.
static_busybox() {
    local source
    source=$(command -v busybox || true)
    if [ -n "$source" ] && ! ldd "$source" >/dev/null 2>&1; then
        install -m 0755 "$source" "$1"
    elif docker pull -q busybox:stable-musl >/dev/null 2>&1; then
        docker run --rm --entrypoint cat busybox:stable-musl /bin/busybox >"$1" && chmod 0755 "$1"
    else
        fail "there is no static busybox for the holder image; run: apt-get install busybox-static"
    fi
}

main() {
    [ -x "$PYTHON" ] || fail "there is no virtual environment; run: make dev"
    docker version >/dev/null 2>&1 || fail "no Docker engine answers; run: make engine"
    mkdir -p "$WORK"
    # One at a time: two would clear each other's folders.
    exec 8>"$WORK/.lock"
    flock 8
    # By sudo, what lies in the user's folder stays the user's.
    [ -z "${SUDO_UID:-}" ] || trap 'chown -R "$SUDO_UID:$SUDO_GID" "$ROOT/build"' EXIT
    local name
    for name in "${@:-holder probe}"; do
        for name in $name; do build_one "$name"; done
    done
}

build_one() {
    case $1 in
        holder) build_holder ;;
        algorithm-base) build_python algorithm-base data skerry ;;
        probe)
            build_one algorithm-base
            build_probe
            ;;
        server) build_python server "server postgresql s3 metrics" "skerry skerry_server" ;;
        proxy) build_python proxy "proxy client" "skerry skerry_proxy" ;;
        node)
            build_one proxy
            build_python node node "skerry skerry_proxy skerry_node" "skerry/proxy:$VERSION"
            ;;
        *) fail "there is no image called $1; there are: holder algorithm-base probe server proxy node" ;;
    esac
}

main "$@"
