# shellcheck shell=bash disable=SC2154,SC2034 # the variables are those of main in install.sh
# Sourced by install.sh: releases side by side, the one in use behind the link `current`.
#
#   PREFIX/releases/VERSION/{source,wheel,daemon,worker}   one release: what it was made of, and its two environments
#   PREFIX/torch/KEY                                       torch and its like, shared by the releases that want the same
#   PREFIX/current, PREFIX/previous                        the release in use, and the one before it
#
# A release is put in use only after it has slept once, on a tiny model. Nothing that exists in the configuration's
# directory is ever written.

set_places() {
    if $is_user; then
        local data="$HOME/.local/share"
        prefix=$data/sage-sleepd units=$data/systemd/user local_prefix=$HOME/.local log=$data/sage-sleepd/install.log
        config_directory=$HOME/.config/sage-sleepd state=$HOME/.local/state/sage-sleepd
        systemctl=(systemctl --user) sudo=""
    else
        prefix=/opt/sage-sleepd units=/usr/lib/systemd/system local_prefix=/usr/local log=/var/log/sage-sleepd-install.log
        config_directory=/etc/sage-sleepd state=/var/lib/sage-sleepd
        systemctl=(systemctl) sudo="sudo "
    fi
    config=$config_directory/config.toml
}

require_system() {
    command -v systemctl >/dev/null ||
        fail "expected systemd, found no systemctl" "without systemd: ./install.sh try, or run sleepd --config FILE under what you have"
    if $is_user; then
        ((EUID != 0)) || fail "expected a user for --user, found root" "without --user it is installed for the whole system"
    elif ! $is_dry && ((EUID != 0)); then
        fail "expected root for a system install, found user $(id -un)" \
            "sudo ./install.sh (or, without root: ./install.sh --user, ./install.sh try)"
    fi
}

install_system() {
    set_places
    require_system
    umask 022
    use_system_python
    prepare
    name_release
    choose_worker_base
    if ! $is_user; then
        stage "user, groups and directories" make_user
    fi
    if [[ -e $release/.complete ]]; then
        printf '  release %s is here already\n' "$(basename "$release")"
    else
        stage "release $(basename "$release"): its source" copy_source
        stage "its environment for the daemon" daemon_environment
        if [[ -z $worker_base ]]; then
            stage "torch (a large download, once for all releases that want the same)" torch_environment
        else
            printf '  torch is taken from %s\n' "$worker_base"
        fi
        stage "its environment for the worker" worker_environment
    fi
    stage "self-test: one whole cycle on a tiny model" self_test
    run touch "$release/.complete"
    put_in_use "$release"
    stage "removing releases older than the one before" prune_releases
    say_what_is_next
}

# The service sees no home directories, so that an interpreter which lives in one would not start there.
use_system_python() {
    if [[ -z ${PYTHON:-} && -x /usr/bin/python3 ]]; then
        python=/usr/bin/python3
    fi
    require_python
    $is_user || require_outside_homes "$python"
}

require_outside_homes() {
    local real
    real=$("$1" -c 'import os, sys; print(os.path.realpath(sys.executable))')
    case $real in
        /home/* | /root/*)
            fail "expected a Python outside home directories, which the service does not see; found $real" \
                "name another one: sudo PYTHON=/path/to/python3 ./install.sh"
            ;;
    esac
}

# VERSION; with a digest of the source behind it where another source has taken that name.
name_release() {
    local version
    version=$(sed -n 's/^VERSION = "\(.*\)"$/\1/p' "$here/sleepd/version.py")
    digest=$(cd "$here" && find pyproject.toml install.sh sleepd systemd config -type f ! -name '*.pyc' -print0 | sort -z |
        xargs -0 sha256sum | sha256sum | cut -c1-8)
    release=$prefix/releases/$version
    if [[ -e $release/.complete && $(cat "$release/source/.digest") != "$digest" ]]; then
        release+=-$digest
    fi
}

# Which interpreter's torch the worker gets: the named one's, the one of the release before, that of a system Python
# with CUDA (a Jetson's comes from NVIDIA and is not to be had with pip), else one of our own (empty).
choose_worker_base() {
    if [[ -z $worker_base && -s $prefix/current/.worker-base ]]; then
        worker_base=$(cat "$prefix/current/.worker-base")
    elif [[ -z $worker_base ]] && "$python" -c 'import sys, torch; sys.exit(not torch.version.cuda)' 2>/dev/null; then
        worker_base=$python
    fi
    if [[ -n $worker_base ]]; then
        "$worker_base" -c 'import sys, torch; sys.exit(sys.version_info < (3, 11))' 2>/dev/null ||
            fail "expected an interpreter from 3.11 on that can import torch, found $worker_base" "name another one: --worker-python PATH"
        $is_user || require_outside_homes "$worker_base"
    fi
}

make_user() {
    run install -D -m 0644 "$here/systemd/sage-sleepd.sysusers" /usr/lib/sysusers.d/sage-sleepd.conf
    run install -D -m 0644 "$here/systemd/sage-sleepd.tmpfiles" /usr/lib/tmpfiles.d/sage-sleepd.conf
    run systemd-sysusers sage-sleepd.conf
    run systemd-tmpfiles --create sage-sleepd.conf
}

copy_source() {
    local part
    run rm -rf "$release"
    run install -d "$release/source"
    for part in pyproject.toml README.md LICENSE install.sh sleepd systemd config; do
        run cp -R "$here/$part" "$release/source/"
    done
    run find "$release/source" -name __pycache__ -prune -exec rm -rf '{}' +
    $is_dry || printf '%s\n' "$digest" >"$release/source/.digest"
}

# $1: an environment; the rest: what pip gets.
pip_install() {
    local environment=$1
    shift
    run "$environment/bin/python" -m pip install --quiet --disable-pip-version-check --no-input "$@"
}

daemon_environment() {
    run "$python" -m venv "$release/daemon"
    pip_install "$release/daemon" "${locked[@]}" "$here/config/requirements/build.txt"
    # Built here, where nothing else is: beside the operator's torch an old setuptools may lie. What pip leaves in the source
    # directory is not part of the release.
    run "$release/daemon/bin/python" -m pip wheel --quiet --disable-pip-version-check --no-input "${ours[@]}" \
        --wheel-dir "$release/wheel" "$release/source"
    run rm -rf "$release/source/build" "$release/source/sage_sleepd.egg-info"
    pip_install "$release/daemon" "${locked[@]}" "$here/config/requirements/daemon.txt"
    # For sleepctl report --html and the page; the daemon imports none of it.
    pip_install "$release/daemon" "${locked[@]}" "$here/config/requirements/web.txt"
    pip_install "$release/daemon" --no-deps "$(wheel)"
}

# The package of the release, for both environments.
wheel() {
    local found=("$release"/wheel/*.whl)
    printf '%s\n' "${found[0]}"
}

torch_environment() {
    local directory
    directory=$(torch_directory)
    if [[ ! -e $directory/.complete ]]; then
        run rm -rf "$directory"
        run "$python" -m venv "$directory"
        pip_install "$directory" "${locked[@]}" "$here/config/requirements/build.txt"
        pip_install "$directory" "${locked[@]}" "$here/config/requirements/worker.txt"
        pip_install "$directory" "${torch[@]}"
        run touch "$directory/.complete"
    fi
}

torch_directory() {
    printf '%s\n' "$prefix/torch/$({
        printf '%s\n' "${torch[*]}"
        "$python" --version
        cat "$here/config/requirements/build.txt" "$here/config/requirements/worker.txt"
    } | sha256sum | cut -c1-12)"
}

# The lines of a .pth file, each of which is a program, by which an environment sees what an interpreter ($1) sees.
# Python quotes the paths: there may be anything in them.
beneath_pth() {
    "$1" -c '
import site, sysconfig
paths = [sysconfig.get_path("purelib"), sysconfig.get_path("platlib"), *site.getsitepackages()]
for path in dict.fromkeys(paths):
    print(f"import site; site.addsitedir({path!a})")'
}

# A thin environment of the release's own above the one with torch, in which nothing is changed.
worker_environment() {
    local base=${worker_base:-$(torch_directory)/bin/python}
    run "${worker_base:-$python}" -m venv "$release/worker"
    if $is_dry; then
        printf '# %s sees what %s sees\n' "$release/worker" "$base"
    else
        local site
        site=$("$release/worker/bin/python" -c 'import sysconfig; print(sysconfig.get_path("purelib"))')
        beneath_pth "$base" >"$site/beneath.pth"
        printf '%s' "$worker_base" >"$release/.worker-base"
        if [[ -z $worker_base ]]; then
            printf '%s' "$(torch_directory)" >"$release/.torch"
        fi
    fi
    if [[ -z $worker_base ]]; then
        pip_install "$release/worker" --no-deps "$(wheel)"
    else
        # What is missing in the operator's interpreter comes into ours, by its hash. What is there stays; where it does not
        # fit, pip chooses another one, of which no hash is known. torch is held at the version that is there.
        local version=0
        $is_dry || version=$("$base" -c 'import torch; print(torch.__version__.partition("+")[0])')
        pip_install "$release/worker" "${locked[@]}" "$here/config/requirements/build.txt"
        if $is_dry; then
            printf '# %s: what %s lacks of %s\n' "$release/missing.txt" "$base" "$here/config/requirements/worker.txt"
        else
            "$release/worker/bin/python" "$here/config/requirements/missing.py" "$here/config/requirements/worker.txt" >"$release/missing.txt"
        fi
        pip_install "$release/worker" "${locked[@]}" "$release/missing.txt"
        pip_install "$release/worker" "torch==$version" "$(wheel)[worker]"
        pip_install "$release/worker" --no-deps --force-reinstall "$(wheel)"
    fi
}

# As the service's user, with the operator's configuration where there is one: a wrong worker.python is found here.
self_test() {
    local as=() arguments=()
    $is_user || as=(runuser -u sage-sleepd --)
    if [[ -e $config ]]; then
        arguments=(--config "$config")
    fi
    (cd / && run "${as[@]}" "$release/daemon/bin/python" -P -m sleepd.selftest "${arguments[@]}")
}

# Flips the link, and back again where that fails or a running service does not come up with it. $1: the release.
put_in_use() {
    local wanted=$1 was="" running=()
    if [[ -L $prefix/current ]]; then
        was=$(readlink -f "$prefix/current")
    fi
    # Not as a condition: in one, flip would go on after a command that failed.
    set +e
    (set -e; stage "units, commands and configuration" flip "$wanted")
    local status=$?
    set -e
    if ((status != 0)); then
        take_back "could not be put in use" "$log"
    fi
    if ! $is_dry; then
        mapfile -t running < <("${systemctl[@]}" list-units --plain --no-legend --state=active 'sage-sleepd.service' 'sage-sleepd@*.service' 2>/dev/null | cut -d' ' -f1)
    fi
    if ((${#running[@]} > 0)) &&
        ! (stage "restarting ${running[*]}; a cycle under way is suspended" run "${systemctl[@]}" restart "${running[@]}"); then
        take_back "did not start" "journalctl -u sage-sleepd -n 50"
    fi
    remember_previous "$was" "$wanted"
}

# Puts the release in use that was before, with the variables of put_in_use. $1: what the new one did; $2: the hint.
take_back() {
    if [[ -z $was || $was == "$wanted" ]]; then
        fail "release $(basename "$wanted") $1" "$2"
    fi
    stage "back to $(basename "$was")" flip "$was"
    if ((${#running[@]} > 0)); then
        stage "restarting ${running[*]}" run "${systemctl[@]}" restart "${running[@]}"
    fi
    fail "release $(basename "$wanted") $1; $(basename "$was") is in use again" "$2"
}

remember_previous() {
    if [[ -n $1 && $1 != "$2" ]]; then
        run ln -sfn "$1" "$prefix/previous"
    fi
}

# Everything outside the prefix comes from the release that is put in use, so that a rollback takes it back too.
flip() {
    local target=$1 from=$1/source
    run ln -sfn "$target" "$prefix/current.new"
    run mv -T "$prefix/current.new" "$prefix/current"
    if $is_user; then
        run install -D -m 0644 -t "$units" "$from/systemd/user"/*
    else
        install_units "$from/systemd"
    fi
    run install -d "$local_prefix/bin"
    run ln -sfn "$prefix/current/daemon/bin/sleepctl" "$local_prefix/bin/sleepctl"
    # Manual pages and completions of the release that was just installed.
    run "$target/daemon/bin/python" -P -m sleepd.sleepctl.share "$local_prefix"
    first_config "$target"
    # Absent in an image that is being built: systemd reads the units when it boots.
    if [[ -d /run/systemd/system ]]; then
        run "${systemctl[@]}" daemon-reload
        # The page of the release before; its socket starts the new one at the next request.
        run "${systemctl[@]}" stop 'sage-sleep-web*.service'
    fi
}

install_units() {
    local from=$1 unit gpu
    run install -D -m 0644 -t "$units" "$from"/*.service "$from"/*.timer "$from"/*.socket
    run install -D -m 0644 "$from/sage-sleepd.catalog" /usr/lib/systemd/catalog/sage-sleepd.catalog
    run journalctl --update-catalog
    for gpu in cuda jetson; do
        for unit in sage-sleepd sage-sleepd@; do
            if has_gpu "$gpu"; then
                run install -D -m 0644 -t "$units/$unit.service.d" "$from/20-$gpu.conf"
            else
                run rm -f "$units/$unit.service.d/20-$gpu.conf"
            fi
        done
    done
}

has_gpu() {
    case $1 in
        jetson) [[ -e /dev/nvmap || -e /dev/nvhost-ctrl || -e /etc/nv_tegra_release ]] ;;
        cuda) [[ -e /dev/nvidiactl || -e /proc/driver/nvidia/version ]] && ! has_gpu jetson ;;
    esac
}

# The operator's file is never written again once it is there; what is new in the default lies beside it.
first_config() {
    local make=("$1/daemon/bin/python" -P -m sleepd.sleepctl.first_config) scope=()
    if $is_user; then
        scope=(--user)
    fi
    run install -d -m 0755 "$config_directory"
    run "${make[@]}" "${scope[@]}" "$config.dist"
    if [[ ! -e $config ]]; then
        run mv "$config.dist" "$config"
    fi
}

prune_releases() {
    local each kept torch_kept
    kept=$(readlink -f "$prefix/current" "$prefix/previous" 2>/dev/null || true)
    for each in "$prefix"/releases/*; do
        if [[ -d $each ]] && ! grep -qxF "$each" <<<"$kept"; then
            run rm -rf "$each"
        fi
    done
    torch_kept=$(cat "$prefix"/releases/*/.torch 2>/dev/null || true)
    for each in "$prefix"/torch/*; do
        if [[ -d $each ]] && ! grep -qF "$each" <<<"$torch_kept"; then
            run rm -rf "$each"
        fi
    done
}

say_what_is_next() {
    if $is_dry; then
        return
    fi
    local me="" of_user=""
    if $is_user; then
        of_user=" --user"
    else
        me="
  To use sleepctl without sudo, and to let the agent read its adapters (from the next login on):
    sudo usermod -aG sage-sleepd $(printf '%q' "${SUDO_USER:-USER}")"
    fi
    if "${systemctl[@]}" is-active --quiet sage-sleepd 2>/dev/null; then
        printf '\nRelease %s is in use. To go back: %s%q/current/source/install.sh%s --rollback\nNext: %ssleepctl status\n' \
            "$(basename "$release")" "$sudo" "$prefix" "$of_user" "$sudo"
        return
    fi
    cat <<EOF

Release $(basename "$release") is installed; nothing was started.$me
Next, name the file into which the agent writes its experiences:
    ${sudo}sleepctl setup-buffer /path/to/experiences.json
EOF
}

rollback_release() {
    set_places
    require_system
    local target
    target=$(readlink -f "$prefix/previous" 2>/dev/null || true)
    [[ -n $target && -e $target/.complete ]] ||
        fail "expected a release before this one, found none in $prefix/releases" "sudo ./install.sh in a checkout of the wanted one"
    release=$target
    stage "self-test: one whole cycle on a tiny model" self_test
    put_in_use "$target"
    say_what_is_next
}
