#!/bin/bash
# Python 3.11 from Debian packages alone, for machines where no image registry answers: `debian-python.sh TAG LABEL=VALUE`.
#
# Stands in for `python:3.11-slim`: python, pip and a shell, no apt, no perl, no setuid file. Needs root, mmdebstrap and an engine.
set -euo pipefail
# Whoever runs in the image must be able to read it, whatever the caller's files are like.
umask 022

TAG=$1
LABEL=$2
PACKAGES=python3,python3-setuptools,python3-wheel,ca-certificates,dash,coreutils,grep,sed,base-passwd,libstdc++6,tzdata

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
root=$work/root

mmdebstrap --quiet --variant=extract --include="$PACKAGES" bookworm "$root"
# By itself: the package asks for a compiler and headers, which are of no use here.
(cd "$work" && apt-get download -qq -o APT::Sandbox::User=root python3-pip && dpkg-deb --extract python3-pip_*.deb "$root")

# `extract` runs no maintainer script; this is what they would have done.
cp /etc/ssl/certs/ca-certificates.crt "$root/etc/ssl/certs/"
printf 'root:x:0:0:root:/root:/bin/sh\nnobody:x:65534:65534:nobody:/nonexistent:/usr/sbin/nologin\n' >"$root/etc/passwd"
printf 'root:x:0:\nnogroup:x:65534:\n' >"$root/etc/group"
mkdir -p "$root/usr/local/bin"
ln -s python3 "$root/usr/bin/python"
# The image is Python's own house: pip may install into it.
rm -f "$root/usr/lib/python3.11/EXTERNALLY-MANAGED"
find "$root" -type f -perm /6000 -exec chmod a-s {} +
rm -rf "$root"/usr/share/{doc,man,locale,lintian,bug} "$root"/var/lib/{apt,dpkg} "$root"/var/cache/apt

# A read-only container can't write .pyc: without them an import takes two to three times as long.
chroot "$root" /usr/bin/python3 -m compileall -q -j0 --invalidation-mode unchecked-hash \
    /usr/lib/python3.11 /usr/lib/python3/dist-packages >/dev/null || true # Debian ships a few files that are not for 3.11

tar -C "$root" -c . | docker import -c 'ENV LANG=C.UTF-8' -c 'ENV PATH=/usr/local/bin:/usr/bin:/bin' -c 'CMD ["python3"]' \
    -c "LABEL $LABEL" - "$TAG" >/dev/null
