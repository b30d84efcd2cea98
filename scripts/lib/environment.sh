# What quickstart, test, bench and install-system share: the system packages and the virtual environment. To be sourced.
# shellcheck shell=bash

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd -P)
venv=$root/.venv

say() { printf '\033[1m%s\033[0m\n' "$*" >&2; }
die() {
    printf 'error: %s\n' "$1" >&2
    shift
    for line in "$@"; do printf '       %s\n' "$line" >&2; done
    exit 1
}
is_root() { [ "$(id -u)" -eq 0 ]; }
have() { command -v "$1" >/dev/null 2>&1; }

# --- Python --------------------------------------------------------------------------------------------------------

new_enough() { "$1" -c 'import sys; sys.exit(sys.version_info < (3, 11))' >/dev/null 2>&1; }
has_venv() { "$1" -c 'import ensurepip, venv' >/dev/null 2>&1; }
has_headers() {
    "$1" -c 'import os, sys, sysconfig; sys.exit(not os.path.exists(os.path.join(sysconfig.get_path("include"), "Python.h")))' \
        >/dev/null 2>&1
}

# Prints the Python to use. The system's comes first: other users, systemd and mount(8) can run it, which is not said of one that
# stands in somebody's home. A user without privileges takes the first that needs no package beside it.
find_python() {
    local candidate first=""
    if [ -n "${PYTHON:-}" ]; then
        new_enough "$PYTHON" || die "PYTHON=$PYTHON is no Python of version 3.11 or later"
        command -v "$PYTHON"
        return
    fi
    for candidate in /usr/bin/python3 /usr/bin/python3.{13,12,11} python3 python3.{13,12,11}; do
        if ! { have "$candidate" && new_enough "$candidate"; }; then continue; fi
        if is_root || { has_venv "$candidate" && has_headers "$candidate"; }; then
            command -v "$candidate"
            return
        fi
        first=${first:-$(command -v "$candidate")}
    done
    [ -n "$first" ] || die "there is no Python of version 3.11 or later" \
        "On Debian 12, Ubuntu 24.04 and later: apt-get install python3; or name one: PYTHON=/path/to/python3 $0"
    printf '%s\n' "$first"
}

# --- system packages -----------------------------------------------------------------------------------------------

compiles() { have gcc && printf '#include <stdio.h>\nint main(void){return 0;}\n' | gcc -x c - -o /dev/null 2>/dev/null; }

# Prints the Debian packages that building and mounting lack, judged by what is there and not by who installed it.
missing_for_mounting() {
    local python=$1 version
    version=$("$python" -c 'import sys; print("%d.%d" % sys.version_info[:2])')
    have fusermount3 || echo fuse3
    [ -e "$venv/.envfs-installed" ] && return # pyfuse3 has been built: the rest was for that
    compiles || echo gcc libc6-dev
    have pkg-config || echo pkg-config
    pkg-config --exists fuse3 2>/dev/null || echo libfuse3-dev
    has_venv "$python" || echo "python$version-venv"
    has_headers "$python" || echo "python$version-dev"
}

missing_for_testing() {
    local tool
    for tool in git tar rsync sqlite3 make fio stress-ng; do have "$tool" || echo "$tool"; done
    have setfattr || echo attr
    have setfacl || echo acl
    have openssl || echo openssl
    have mkfs.ext4 || echo e2fsprogs
    have mkfs.xfs || echo xfsprogs
    have mkfs.btrfs || echo btrfs-progs
    have losetup || echo mount
    have groff || echo groff-base
    have useradd || echo passwd
    have setpriv || echo util-linux
    compiles || echo gcc libc6-dev
}

# ensure_packages PACKAGE…: installs what is missing; who is not root is told what to type.
ensure_packages() {
    [ $# -gt 0 ] || return 0
    have apt-get || die "missing: $*" "This machine has no apt-get: install what these Debian packages hold in its own way."
    is_root || die "missing packages: $*" "Type this, then run the same command again:" \
        "    sudo apt-get update && sudo apt-get install -y $*"
    say "Installing $*"
    apt-get update -q >&2
    DEBIAN_FRONTEND=noninteractive apt-get install -y -q --no-install-recommends "$@" >&2
}

# --- virtual environment ---------------------------------------------------------------------------------------------

# ensure_venv LOCK: .venv with exactly the versions of LOCK (and their hashes). Does nothing when that is already so.
ensure_venv() (
    set -e
    lock=$1 python=$2 installed=$venv/.envfs-installed
    cd "$root"
    exec 9<"$root"
    flock 9 # two that run at once wait for each other
    if "$venv/bin/python" -c '' 2>/dev/null && grep -qsxF "$(checksum "$lock")" "$installed"; then
        exit 0
    fi
    if ! usable_venv; then
        say "Making $venv with $python"
        rm -f "$installed"
        "$python" -m venv --clear "$venv"
    fi
    say "Installing the locked versions ($lock)"
    pip=("$venv/bin/python" -m pip --disable-pip-version-check --quiet install)
    "${pip[@]}" --require-hashes -r requirements-build.lock
    "${pip[@]}" --require-hashes --no-build-isolation -r "$lock"
    PYTHONWARNINGS=ignore "${pip[@]}" --no-index --no-deps --no-build-isolation --editable .
    # The development lock holds all of the other.
    { checksum "$lock" && checksum requirements.lock && echo "in $root"; } >"$installed"
)
# What an installation from this lock file is known by.
checksum() { printf '%s %s\n' "$1" "$(cat requirements-build.lock "$1" pyproject.toml | sha256sum | cut -d ' ' -f 1)"; }
# A virtual environment does not survive that its checkout is moved, or that its Python is upgraded away.
usable_venv() {
    new_enough "$venv/bin/python" && "$venv/bin/python" -m pip --version >/dev/null 2>&1 &&
        { [ ! -e "$venv/.envfs-installed" ] || grep -qxF "in $root" "$venv/.envfs-installed"; }
}

# set_up LOCK [PACKAGE…]: everything that mounting needs, and these packages.
set_up() {
    local lock=$1 python
    shift
    python=$(find_python)
    # shellcheck disable=SC2046 # package names have no spaces
    ensure_packages $(missing_for_mounting "$python") "$@"
    ensure_venv "$lock" "$python"
}

# --- FUSE ------------------------------------------------------------------------------------------------------------

# Fails with the reason if no FUSE filesystem can be mounted here.
need_fuse() {
    if [ ! -e /dev/fuse ] && is_root; then modprobe fuse 2>/dev/null || true; fi
    [ -c /dev/fuse ] || die "there is no /dev/fuse" \
        "In a container: start it with --device /dev/fuse --cap-add SYS_ADMIN --security-opt apparmor=unconfined." \
        "Else: modprobe fuse (as root)."
    have fusermount3 || die "fusermount3 is missing" "Install the package fuse3."
}

# mount_type DIR: the type of what is mounted on DIR, empty if nothing is. Reads the kernel's list: never asks the mount itself.
mount_type() { mount_field 3 "$1"; }
mount_source() { mount_field 1 "$1"; }
mount_field() {
    field=$1 dir=${2// /\\040} awk '$2 == ENVIRON["dir"] { value = $ENVIRON["field"] } END { gsub(/\\040/, " ", value); print value }' \
        /proc/self/mounts
}
