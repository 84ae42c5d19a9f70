#!/bin/sh
# Makes a virtual environment with maskdrop and one of its extras in it.
# Usage: install.sh FOLDER EXTRA. Installs Debian packages that are missing: Python's venv, and those that
# systemd-python is built with. If systemd-python can't be built, maskdrop is installed without it.
set -eu
folder=$1
extra=$2

python=
for candidate in "${MASKDROP_PYTHON:-}" python3.11 python3 python3.12 python3.13; do
    if [ -n "$candidate" ] && "$candidate" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then
        python=$candidate
        break
    fi
done
if [ -z "$python" ]; then
    echo "maskdrop needs Python 3.11 or newer: apt-get install python3 python3-venv, or set MASKDROP_PYTHON" >&2
    exit 1
fi

version=$("$python" -c 'import sys; print("%d.%d" % sys.version_info[:2])')
sudo=
[ "$(id -u)" = 0 ] || sudo=sudo

if ! "$python" -c 'import ensurepip, venv' 2>/dev/null; then
    $sudo apt-get update
    $sudo apt-get install -y --no-install-recommends "python$version-venv"
fi

# An environment has no pip if making it was interrupted; making it again completes it.
"$folder/bin/python" -c 'import pip' 2>/dev/null || "$python" -m venv "$folder"
# pip 22.3 brought --python, by which the service gets an environment of its own.
"$folder/bin/python" -c 'import pip, sys; sys.exit(tuple(map(int, pip.__version__.split(".")[:2])) < (22, 3))' ||
    "$folder/bin/python" -m pip install --quiet --upgrade pip
"$folder/bin/python" -m pip install --quiet --constraint constraints.txt --editable ".[$extra]"

can_build_systemd() {
    pkg-config --exists libsystemd 2>/dev/null && command -v cc >/dev/null && "$python" -c '
import pathlib, sys, sysconfig
sys.exit(not (pathlib.Path(sysconfig.get_path("include")) / "Python.h").exists())'
}

packages="gcc libc6-dev libsystemd-dev pkg-config"
case $("$python" -c 'import sysconfig; print(sysconfig.get_path("include"))') in
    /usr/include/*) packages="$packages python$version-dev" ;;
esac
if ! can_build_systemd; then
    ($sudo apt-get update && $sudo apt-get install -y --no-install-recommends $packages) || true
fi
if ! can_build_systemd || ! "$folder/bin/python" -m pip install --quiet --constraint constraints.txt --editable ".[systemd]"; then
    echo "maskdrop is installed without systemd-python: no readiness, watchdog and journal fields under systemd." >&2
    echo "For these: apt-get install $packages; $folder/bin/pip install systemd-python" >&2
fi
