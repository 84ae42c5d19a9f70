#!/bin/sh
# Makes a virtual environment with maskdrop and one of its extras in it.
# Usage: install.sh FOLDER EXTRA. Installs Debian's venv package if it is missing.
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

if ! "$python" -c 'import ensurepip, venv' 2>/dev/null; then
    version=$("$python" -c 'import sys; print("%d.%d" % sys.version_info[:2])')
    sudo=
    [ "$(id -u)" = 0 ] || sudo=sudo
    $sudo apt-get update
    $sudo apt-get install -y --no-install-recommends "python$version-venv"
fi

[ -x "$folder/bin/python" ] || "$python" -m venv "$folder"
"$folder/bin/python" -m pip install --quiet --constraint constraints.txt --editable ".[$extra]"
