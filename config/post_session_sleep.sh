#!/usr/bin/env bash
# For the end of an agent's session: shows whether sleep is due and asks sage-sleepd for it.
# It always returns 0, so that it cannot fail the session it ends.
set -euo pipefail

usage() {
    cat <<'EOF'
usage: post_session_sleep.sh [--force]

Shows the check, asks the daemon for a cycle, prints the result, and returns 0 in every case. It does not
wait for the sleep to end; `sleepctl status` shows how it goes.

  --force   sleep also when the thresholds are not reached

environment:
  SLEEPCTL          the sleepctl to call (default: the one on PATH, else /opt/sage-sleepd/current/daemon/bin/sleepctl)
  SLEEPCTL_SECONDS  how long each of the two calls may take (default: 30)
EOF
}

say() { printf 'post-session sleep: %s\n' "$*"; }

find_sleepctl() {
    if [[ -n ${SLEEPCTL:-} ]]; then
        printf '%s\n' "$SLEEPCTL"
    else
        command -v sleepctl || printf '%s\n' /opt/sage-sleepd/current/daemon/bin/sleepctl
    fi
}

# Runs sleepctl with a limit on its time; its exit status, or 124 where it took too long, 127 where there is none.
ask() {
    timeout --kill-after=5 "${SLEEPCTL_SECONDS:-30}" "$sleepctl" "$@" </dev/null
}

explain() {
    case $1 in
        0) say "a cycle was started; watch it with: sleepctl status" ;;
        3) say "no cycle: the daemon is not running; start it with: sudo systemctl start sage-sleepd" ;;
        5) say "no cycle: there is nothing to do now" ;;
        7) say "no new cycle: one is running already" ;;
        8) say "no cycle: no permission; see the hint above" ;;
        124) say "no answer from sleepctl within ${SLEEPCTL_SECONDS:-30} s; see: journalctl -u sage-sleepd -n 50" ;;
        126 | 127) say "no cycle: $sleepctl cannot be run; is sage-sleepd installed?" ;;
        *) say "no cycle: sleepctl ended with exit status $1; see: journalctl -u sage-sleepd -n 50" ;;
    esac
}

main() {
    local run=(run) sleepctl status=0
    case ${1:-} in
        "") ;;
        --force) run+=(--force) ;;
        -h | --help)
            usage
            return
            ;;
        *)
            say "expected --force or nothing, found '$1'; no cycle was requested"
            return
            ;;
    esac
    sleepctl=$(find_sleepctl)
    if ! command -v "$sleepctl" >/dev/null; then
        explain 127
        return
    fi
    # `check` shows in its output whether a cycle is due; a status of its own is explained by what follows.
    ask check || true
    ask "${run[@]}" || status=$?
    explain "$status"
}

main "$@" || say "ended with exit status $?; no cycle was requested"
exit 0
