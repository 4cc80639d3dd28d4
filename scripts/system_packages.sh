#!/bin/sh
# Install what some tests use beside Python packages: a real RTSP server, a browser. Elsewhere than on Debian as root, they skip.
set -eu
packages=$(sed 's/#.*//' "$1" | tr '\n' ' ')
if ! command -v apt-get >/dev/null || [ "$(id -u)" -ne 0 ]; then
    echo "not installed, so the tests that use them will skip: $packages" >&2
    exit 0
fi
missing=""
for package in $packages; do
    dpkg-query -W -f '${db:Status-Status}' "$package" 2>/dev/null | grep -qx installed || missing="$missing $package"
done
[ -n "$missing" ] || exit 0
export DEBIAN_FRONTEND=noninteractive
# shellcheck disable=SC2086  # one word per package
apt-get -qq update && apt-get -qq install --no-install-recommends -y $missing >/dev/null ||
    echo "apt-get failed, so the tests that use these will skip:$missing" >&2
