# shellcheck shell=bash disable=SC2154,SC2034 # the variables are those of main in install.sh
# Sourced by install.sh: takes away what installer.sh put there.

uninstall() {
    set_places
    require_system
    confirm_purge
    stage "stopping it" stop_units
    stage "units, commands and releases" remove_installed
    if $is_purge; then
        stage "configuration, adapters, caches and the user" remove_everything
        $is_dry || printf '\nNothing of sage-sleepd is left.\n'
    elif ! $is_dry; then
        say_what_stays
    fi
}

confirm_purge() {
    local answer
    if ! $is_purge || $is_dry || [[ ! -t 0 ]]; then
        return
    fi
    read -rp "This removes every adapter in $state and the configuration. To go on, type purge: " answer
    [[ $answer == purge ]] || fail "nothing was removed" "--uninstall keeps adapters and configuration"
}

stop_units() {
    local listed=()
    mapfile -t listed < <("${systemctl[@]}" list-units --all --plain --no-legend 'sage-sleepd*.service' 'sage-sleep-check.*' 'sage-sleep-web*' 'sage-sleep-notify.service' 'sage-sleep-sync.service' 'sage-sleep-serve*' 'sage-sleep-ssh*' 2>/dev/null | cut -d' ' -f1)
    mapfile -t -O "${#listed[@]}" listed < <("${systemctl[@]}" list-unit-files --no-legend --state=enabled 'sage-sleep*' 2>/dev/null | cut -d' ' -f1)
    local unit
    for unit in "${listed[@]}"; do
        # A template is no unit that could run.
        if [[ -n $unit && $unit != *@.service ]]; then
            run "${systemctl[@]}" disable --now "$unit" || run "${systemctl[@]}" stop "$unit"
        fi
    done
}

remove_installed() {
    if [[ -x $prefix/current/daemon/bin/python ]]; then
        run "$prefix/current/daemon/bin/python" -P -m sleepd.sleepctl.share --remove "$local_prefix"
    fi
    run rm -f "$local_prefix/bin/sleepctl"
    run rm -f "$units/sage-sleepd.service" "$units"/sage-sleep-serve.service "$units"/sage-sleep-serve.socket \
        "$units"/sage-sleep-web.service "$units"/sage-sleep-web.socket
    if ! $is_user; then
        run rm -rf "$units"/sage-sleepd@.service "$units"/sage-sleepd.service.d "$units"/sage-sleepd@.service.d \
            "$units"/sage-sleep-check.service "$units"/sage-sleep-check.timer "$units"/sage-sleep-web@.service \
            "$units"/sage-sleep-web@.socket "$units"/sage-sleep-notify.service "$units"/sage-sleep-sync.service \
            "$units"/sage-sleep-serve@.service "$units"/sage-sleep-serve@.socket \
            "$units"/sage-sleep-ssh@.service "$units"/sage-sleep-ssh.socket
        run rm -f /usr/lib/sysusers.d/sage-sleepd.conf /usr/lib/tmpfiles.d/sage-sleepd.conf \
            /usr/lib/systemd/catalog/sage-sleepd.catalog
        run journalctl --update-catalog
    fi
    run rm -rf "$prefix"
    if [[ -d /run/systemd/system ]]; then
        run "${systemctl[@]}" daemon-reload
    fi
}

remove_everything() {
    run rm -rf "$config_directory" "$state"
    if $is_user; then
        return
    fi
    run rm -rf /var/lib/sage-sleepd-* /var/lib/sage-sleep-web /var/lib/sage-sleep-web-* /var/lib/sage-sleep-notify \
        /var/lib/private/sage-sleep-notify /var/cache/sage-sleepd /run/sage-sleepd /run/sage-sleepd-* \
        /etc/systemd/system/sage-sleepd.service.d /etc/systemd/system/sage-sleepd@*.service.d /etc/systemd/system/sage-sleep-web*.d /etc/systemd/system/sage-sleep-notify.service.d /etc/systemd/system/sage-sleep-sync.service.d \
        /etc/systemd/system/sage-sleep-serve*.d /etc/systemd/system/sage-sleep-ssh*.d /etc/polkit-1/rules.d/50-sage-sleepd-engine.rules \
        /var/lib/systemd/timers/stamp-sage-sleep-check.timer
    local name
    for name in sage-sleep-web sage-sleepd; do
        if getent passwd "$name" >/dev/null; then
            run userdel "$name"
        fi
        if getent group "$name" >/dev/null; then
            run groupdel "$name"
        fi
    done
    # Last of all: it is where this is logged.
    log=/dev/null
    run rm -f /var/log/sage-sleepd-install.log
}

say_what_stays() {
    local others=""
    if ! $is_user; then
        others="
    /var/lib/sage-sleepd-*       those of instances
    /etc/systemd/system/sage-sleepd*.service.d
                                 your drop-ins
    /var/cache/sage-sleepd, $log, /var/lib/sage-sleep-web,
    the users and groups sage-sleepd and sage-sleep-web"
    fi
    cat <<EOF

sage-sleepd is uninstalled. What is yours stays:
    $state    the adapters and what was measured on them
    $config_directory    the configuration$others
To remove that too: ${sudo}./install.sh$($is_user && printf ' --user' || true) --purge
EOF
}
