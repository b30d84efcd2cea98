# A volume and a KMS of their own for one run of a script, mounted, and taken away when it ends. To be sourced after environment.sh.
# shellcheck shell=bash
#
# SCRATCH  where they are made (default /var/tmp): its filesystem is the lower one that the run is about
# ENVFS    the envfs command, if it is not to be the one of this checkout
# INIT_OPTIONS  of envfs init

# scratch_setup: sets `base`, a new directory, `envfs`, the command, and `python`. `scratch_clean_up` runs at the end.
scratch_setup() {
    need_fuse
    envfs=${ENVFS:-$venv/bin/envfs}
    [ -n "${ENVFS:-}" ] || set_up requirements.lock
    python=$venv/bin/python
    [ -x "$python" ] || python=python3
    base=$(mktemp -d "${SCRATCH:-/var/tmp}/envfs-scratch-XXXXXX")
    chmod 755 "$base"
    export ENVFS_HOME=$base/kms
    mounted=()
    trap scratch_clean_up EXIT
    trap 'exit 130' INT
    trap 'exit 143' TERM
}

# scratch_mount NAME [OPTIONS]: a new volume $base/NAME.lower, mounted at $base/NAME with these options.
scratch_mount() {
    local mountpoint=$base/$1
    mkdir "$mountpoint"
    # shellcheck disable=SC2086 # several words
    "$envfs" init ${INIT_OPTIONS:-} "$mountpoint.lower" >/dev/null
    "$envfs" mount "$mountpoint.lower" "$mountpoint" ${2:+-o "$2"}
    mounted+=("$mountpoint")
}

# scratch_remount NAME [OPTIONS]: nothing is answered from a cache after it.
scratch_remount() {
    "$envfs" umount "$base/$1"
    "$envfs" mount "$base/$1.lower" "$base/$1" ${2:+-o "$2"}
}

scratch_clean_up() {
    local mountpoint
    cd /
    for mountpoint in "${mounted[@]}"; do
        [ "$(mount_type "$mountpoint")" = fuse.envfs ] || continue
        "$envfs" umount "$mountpoint" || "$envfs" umount --lazy "$mountpoint" || true
    done
    rm -rf --one-file-system "$base"
}

# lower_type: the type of the lower filesystem.
lower_type() { stat -f -c %T "$base"; }
