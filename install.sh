#!/usr/bin/env bash
# Sets up sage-sleepd: to try it, to test it, or for good (systemd/installer.sh). See --help.
set -euo pipefail

usage() {
    cat <<'EOF'
usage: ./install.sh try [--serve] [--keep] [--dry-run]
       ./install.sh test [--all] [--dry-run] [pytest arguments …]
       sudo ./install.sh [--worker-python PATH] [--dry-run]
       sudo ./install.sh --rollback | --uninstall | --purge [--dry-run]
       ./install.sh --user …

  try     Shows it working: a sample agent, a real model of 135 million parameters, one training cycle, the replies
          before and after. No root, no systemd; everything stays in .sleepd-try/ here. A few minutes after
          the downloads, which are large (torch).
  test    Makes an environment in .sleepd-test/ here, with the wheel of this checkout, and runs the tests in it, in
          three processes, without those that boot machines (tier "system") or load SmolLM2-135M-Instruct (tier "model").
          With --all it runs these too, and fails where the tests run too little of the code.
  (none)  Installs for the whole system, or upgrades: a release in /opt/sage-sleepd/releases, which is put in use once
          it has slept on a tiny model; the units; /etc/sage-sleepd/config.toml where there is none. Starts nothing
          that was not running.

  --rollback            put the release before this one in use again
  --uninstall           remove everything but adapters and configuration, and print where these are
  --purge               remove these too
  --user                the same for you alone, with systemctl --user: in ~/.local and ~/.config, without root
  --worker-python PATH  take torch from this interpreter; nothing in it is changed. One with a CUDA torch that
                        /usr/bin/python3 can import is taken by itself.
  --all                 with test: run the tests of every tier and measure coverage; booting machines needs root and
                        systemd-container
  --serve               with try: the agent asks a running llama.cpp server (102 MB, from the package xllamacpp). The
                        daemon puts the adapter into it and proves it by the server's own answers; then it rolls back
                        and proves the base.
  --keep                with try: leave the daemon running, and say how to feed and how to stop it
  --dry-run             print every command, run none
  --help                this text

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
        fail "that failed (exit status $status); the whole log: $log" "fix the cause and run the same command again"
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
    { cat "$here/pyproject.toml" "$here"/config/requirements/*.txt && "$python" --version && printf '%s\n' "$here" "${torch[*]}" "$@"; } | sha256sum | cut -c1-16
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
    run "${install[@]}" "${locked[@]}" "$here/config/requirements/build.txt"
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
    run chmod 0700 "$base" # the demo's buffer, adapter and log
    stage "the daemon's environment" \
        environment "$base/daemon" "${locked[@]}" "$here/config/requirements/daemon.txt" --then "${ours[@]}" -e "$here"
    stage "the worker's environment (torch: a large download, once)" \
        environment "$base/worker" "${locked[@]}" "$here/config/requirements/worker.txt" --then "${torch[@]}" --then "${ours[@]}" -e "$here"
    if $is_served; then
        stage "llama.cpp's server" environment "$base/llama" "${locked[@]}" "$here/config/requirements/llama.txt"
        flags+=(--engine-python "$base/llama/bin/python")
    fi
    if $is_kept; then
        flags+=(--keep)
    fi
    local demo=("$base/daemon/bin/python" -m sleepd.demo --directory "$base/demo" --worker-python "$base/worker/bin/python" "${flags[@]}")
    if $is_dry; then
        run "${demo[@]}"
    else
        exec "${demo[@]}"
    fi
}

# Builds the wheel and installs it. It is built from a copy, so that the checkout gets no build/, whose modules would be
# in the next wheel although they are no longer in the checkout. $1: a directory, with the environment in env/.
install_wheel() {
    local pip=("$1/env/bin/python" -m pip) quiet=(--quiet --disable-pip-version-check --no-input)
    run rm -rf "$1/source" "$1/wheel"
    run mkdir -p "$1/source"
    run cp -R "$here/pyproject.toml" "$here/README.md" "$here/LICENSE" "$here/sleepd" "$1/source"
    run "${pip[@]}" wheel "${quiet[@]}" "${ours[@]}" --wheel-dir "$1/wheel" "$1/source"
    run "${pip[@]}" install "${quiet[@]}" --no-deps --no-index --force-reinstall "$1"/wheel/*.whl
}

# Where bitsandbytes is, each process that trains imports it and takes a second longer: the everyday tests do without.
add_nf4() {
    local marker="$1/.has-nf4"
    if [[ ! -e $marker ]]; then
        run "$1/bin/python" -m pip install --quiet --disable-pip-version-check --no-input "${locked[@]}" "$here/config/requirements/nf4.txt"
        run touch "$marker"
    fi
}

install_test() {
    local base="$here/.sleepd-test"
    log="$base/install.log"
    prepare
    stage "an environment for the tests (torch: a large download, once)" \
        environment "$base/env" "${locked[@]}" "$here/config/requirements/test.txt" --then "${torch[@]}"
    ! $is_all || stage "bitsandbytes, for a base in 4 bits" add_nf4 "$base/env"
    stage "the wheel of this checkout, which is what is tested" install_wheel "$base"
    # With PYTHONSAFEPATH neither pytest nor a process that a test starts takes a module from the working directory.
    # Some tests wait for a process or a machine that boots, and leave a core to a third process.
    local tests=(env PYTHONSAFEPATH=1 "$base/env/bin/python" -m pytest --numprocesses 3 --dist loadscope)
    # What a part of the tests runs says nothing of coverage.
    local gate=()
    if ! $is_all; then
        tests+=(-m "not system and not model")
    elif (($# == 0)); then
        tests+=(--cov --cov-report "json:$base/coverage.json")
        gate=("$base/env/bin/python" "$here/tests/coverage_gate.py" "$base/coverage.json")
    fi
    tests+=("$@")
    cd "$here"
    if $is_dry; then
        run "${tests[@]}"
        ((${#gate[@]} == 0)) || run "${gate[@]}"
    else
        "${tests[@]}"
        "${gate[@]}"
    fi
}

# Sets mode where neither try nor test is asked for, and refuses an option that does not belong to it: one that is
# passed over, or that turns one mode into another, does what nobody asked for. The arguments: the options given.
choose_mode() {
    local each allowed name
    if [[ $mode == install_system ]]; then
        for each in "$@"; do
            case $each in
                --uninstall | --purge) mode=uninstall ;;
                --rollback) mode=rollback_release ;;
            esac
        done
    fi
    case $mode in
        install_try) name=try allowed=" --serve --keep --dry-run " ;;
        install_test) name=test allowed=" --all --dry-run " ;;
        install_system) name="an installation" allowed=" --user --worker-python --dry-run " ;;
        rollback_release) name=--rollback allowed=" --rollback --user --dry-run " ;;
        uninstall) name="--uninstall or --purge" allowed=" --uninstall --purge --user --dry-run " ;;
    esac
    for each in "$@"; do
        [[ $allowed == *" $each "* ]] ||
            fail "$each does not belong to $name; nothing was done" "./install.sh --help shows which options go together"
    done
}

main() {
    local here mode=install_system python=${PYTHON:-python3} log="" is_dry=false is_kept=false is_served=false torch rest=() given=()
    local is_all=false is_user=false is_purge=false worker_base="" release="" digest=""
    local prefix units local_prefix config_directory config state systemctl sudo
    # What config/requirements/ holds, by hash; and then ours, built with the setuptools that is there. torch comes
    # between the two: which build fits is the machine's and the operator's choice, so no hash can be known.
    local ours=(--no-deps --no-build-isolation) locked=(--require-hashes --no-deps --no-build-isolation --use-pep517 -r)
    here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd -P)
    read -ra torch <<<"${SLEEPD_TORCH:-torch==2.13.0}"
    if [[ ${1:-} == try || ${1:-} == test ]]; then
        mode=install_$1
        shift
    fi
    while (($# > 0)); do
        case $1 in
            --dry-run) is_dry=true ;;
            --all) is_all=true ;;
            --keep) is_kept=true ;;
            --serve) is_served=true ;;
            --user) is_user=true ;;
            --rollback | --uninstall) ;;
            --purge) is_purge=true ;;
            --worker-python)
                (($# > 1)) || fail "--worker-python expects a path, found nothing" "--worker-python /usr/bin/python3"
                worker_base=$2
                given+=("$1")
                shift 2
                continue
                ;;
            -h | --help)
                usage
                return
                ;;
            *)
                rest+=("$1")
                shift
                continue
                ;;
        esac
        given+=("$1")
        shift
    done
    choose_mode "${given[@]}"
    if ((${#rest[@]} > 0)) && [[ $mode != install_test ]]; then
        fail "expected try, test or an option, found '${rest[0]}'" "./install.sh --help"
    fi
    if [[ $mode != install_try && $mode != install_test ]]; then
        # shellcheck source=systemd/installer.sh
        source "$here/systemd/installer.sh"
        # shellcheck source=systemd/uninstaller.sh
        source "$here/systemd/uninstaller.sh"
    fi
    "$mode" "${rest[@]}"
}

main "$@"
