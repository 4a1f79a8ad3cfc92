#!/bin/bash
# What the tests run beside skerry: PostgreSQL, a load balancer, clocks that jump, a store that speaks S3, an image registry, WireGuard, nftables, gVisor. Installs Debian's packages for those that are missing.
#
# Where that can't be, the tests that need them say so and are skipped; in CI they fail.
set -u

HERE=$(dirname "$(readlink -f "$0")")

say() { printf 'tests: %s\n' "$*" >&2; }

missing() {
    [ -x /usr/lib/postgresql/15/bin/initdb ] || printf 'postgresql-15 '
    command -v haproxy >/dev/null || printf 'haproxy '
    { command -v radosgw && command -v ceph-mon && command -v ceph-osd && command -v ceph; } >/dev/null || printf 'radosgw ceph-mon ceph-osd ceph-common '
    [ -e /usr/lib/x86_64-linux-gnu/faketime/libfaketimeMT.so.1 ] || printf 'libfaketime '
    command -v docker-registry >/dev/null || printf 'docker-registry '
    command -v htpasswd >/dev/null || printf 'apache2-utils '
    command -v wireguard-go >/dev/null || printf 'wireguard-go '
    command -v nft >/dev/null || printf 'nftables '
}

# The packages would else make and start a cluster, or a load balancer, that nobody asked for.
no_cluster() {
    [ -e /etc/postgresql-common/createcluster.conf ] && return
    mkdir -p /etc/postgresql-common
    echo 'create_main_cluster = false' >/etc/postgresql-common/createcluster.conf
}

packages=$(missing)
if [ -n "$packages" ] && [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; then
    say "installing $packages"
    no_cluster
    export DEBIAN_FRONTEND=noninteractive
    # shellcheck disable=SC2086  # one word for each package
    { apt-get update -qq; apt-get install -y -qq --no-install-recommends $packages; } >/dev/null 2>&1 ||
        say "apt-get could not install $packages"
fi
"$HERE/../docker/engine.sh" gvisor
exit 0
