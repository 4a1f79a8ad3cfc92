#!/bin/bash
# The VPN's tests on the kernel's own WireGuard, in a virtual machine with Debian's kernel: containers and many virtual hosts have a kernel without it.
#
# The machine sees this one's files, and writes to none: its changes are in its memory and go with it. It has no network. Only for x86-64.
set -euo pipefail

HERE=$(dirname "$(readlink -f "$0")")
ROOT=$(dirname "$(dirname "$HERE")")
WORK=$ROOT/build/kernel
MODULES='virtio_pci 9p 9pnet_virtio overlay'

say() { printf 'kernel: %s\n' "$*" >&2; }

install_programs() {
    local packages=''
    command -v qemu-system-x86_64 >/dev/null || packages+='qemu-system-x86 '
    [ -x /bin/busybox ] || packages+='busybox-static '
    command -v depmod >/dev/null || packages+='kmod '
    [ -z "$packages" ] && return
    say "installing $packages"
    export DEBIAN_FRONTEND=noninteractive
    # shellcheck disable=SC2086  # one word for each package
    { apt-get update -qq; apt-get install -y -qq --no-install-recommends $packages; } >/dev/null
}

fetch_kernel() {
    [ -e "$WORK/ready" ] && return
    rm -rf "$WORK"
    mkdir -p "$WORK"
    local package
    package=$(apt-cache depends linux-image-amd64 | sed -n 's/.*Depends: \(linux-image-.*\)/\1/p')
    say "fetching $package"
    (cd "$WORK"; apt-get download -qq "$package" 2>/dev/null; dpkg -x ./*.deb root; rm ./*.deb)
    depmod -b "$WORK/root" "$(version)"
    touch "$WORK/ready"
}

version() { ls "$WORK/root/lib/modules"; }

make_initrd() {
    local made=$WORK/initrd number=10
    rm -rf "$made"
    mkdir -p "$made"/{bin,modules,proc,sys,dev,host,changes,root}
    cp /bin/busybox "$made/bin/"
    install -m 755 "$HERE/init.sh" "$made/init"
    for module in $MODULES; do modprobe -d "$WORK/root" -S "$(version)" --show-depends "$module"; done |
        awk '!seen[$2]++ {print $2}' | while read -r file; do cp "$file" "$made/modules/$((number++))-$(basename "$file")"; done
    (cd "$made"; find . | busybox cpio -o -H newc 2>/dev/null | gzip -1) >"$WORK/initrd.gz"
}

start() {
    qemu-system-x86_64 -M q35 -cpu max -smp 2 -m 3G -nographic -no-reboot -net none \
        -kernel "$WORK/root/boot/vmlinuz-$(version)" -initrd "$WORK/initrd.gz" \
        -append "console=ttyS0 quiet panic=1 skerry=$ROOT" \
        -virtfs local,path=/,mount_tag=host,security_model=none,readonly=on,multidevs=remap </dev/null
}

[ "$(uname -m)" = x86_64 ] || { say "this machine is no x86-64, for which these tests' kernel is"; exit 1; }
[ "$(id -u)" = 0 ] || { say 'needs root: the machine reads all files of this one'; exit 1; }
install_programs
fetch_kernel
make_initrd
start | tee "$WORK/console.log"
grep -q '^kernel: the tests passed' "$WORK/console.log"
