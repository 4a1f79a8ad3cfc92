#!/bin/bash
# In the virtual machine: the tests of the VPN, then off.
export PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin HOME=/root
export PYTHONDONTWRITEBYTECODE=1 PYTEST_DEBUG_TEMPROOT=/dev/shm CI=true

mount -t tmpfs run /run
mkdir -p /run/netns /run/wireguard /dev/shm /dev/pts
mount -t tmpfs shm /dev/shm
mount -t devpts pts /dev/pts
for module in wireguard tun veth nf_tables nft_ct nft_masq nft_reject_inet; do
    modprobe -d "$1/build/kernel/root" "$module"
done
ip link set lo up

cd "$1" || exit
.venv/bin/python - <<'P'
from skerry_node import vpn

print(f"kernel: the node would use {vpn.choose_driver().name}")
P
.venv/bin/pytest -q --color=no -p no:cacheprovider tests/integration/test_tunnels.py tests/integration/test_relay.py && echo 'kernel: the tests passed'
echo o >/proc/sysrq-trigger
sleep 60
