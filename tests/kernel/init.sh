#!/bin/busybox sh
# What the virtual machine's kernel starts first: finds the files of the machine around it, under a layer for changes.
b=/bin/busybox
$b mount -t proc proc /proc
$b mount -t sysfs sys /sys
$b mount -t devtmpfs dev /dev
for module in /modules/*; do $b insmod "$module"; done
$b mount -t 9p -o trans=virtio,version=9p2000.L,msize=262144,cache=loose,ro host /host
$b mount -t tmpfs -o size=1g changes /changes
$b mkdir /changes/upper /changes/work
$b mount -t overlay -o lowerdir=/host,upperdir=/changes/upper,workdir=/changes/work root /root
for place in proc sys dev; do $b mount --move /$place /root/$place; done
root=$($b sed 's/.*skerry=//; s/ .*//' /root/proc/cmdline)
exec $b switch_root /root /bin/bash "$root/tests/kernel/inside.sh" "$root"
