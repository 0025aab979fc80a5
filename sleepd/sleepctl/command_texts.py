"""What ``--help`` and the manual pages say of each command."""

from __future__ import annotations

from .quarantine_arguments import QUARANTINE_EPILOG

GROUPS = {
    "look": {
        "status": "state, what the next sleep waits for, champion, last cycles",
        "check": "whether it should sleep now and why; --apply sleeps when due",
        "why": "the decision now, and how it changed",
        "decisions": "how the decision changed, with its figures; --since 3d",
        "history": "the cycles, newest first: gain, drift, verdict",
        "report": "one night to read: learned, measured, decided, undone how",
        "show": "every figure of one cycle",
        "buffer": "counts, salience, what is new, what was set aside and why",
        "tokens": "one experience as the base sees it, and what is supervised",
        "quarantine": "what is kept from training and why; show, release or drop it",
        "events": "what happens, as it happens, a line each",
        "logs": "what the daemon logged; -f goes on with what it logs",
        "doctor": "what may keep it from sleeping, and what mends it",
        "version": "of this program and of the daemon",
    },
    "act": {
        "run": "sleep now, if due or forced",
        "cancel": "discard the cycle under way",
        "pause": "start no cycle until resumed",
        "resume": "the opposite of pause",
        "rollback": "put an earlier champion, or the base, in use",
        "rebase": "put the base in use, as rollback 0: the next cycle begins anew",
        "tag": "give a cycle a word, which keeps its weights",
        "metric": "add a figure of your own to a cycle; remove: take it away",
        "prune": "remove the weights that are not kept; --dry-run only says which",
    },
    "set up": {
        "setup-buffer": "name the agent's buffer, and show it to the service",
        "reload": "read the configuration again",
        "config": "check FILE: is it correct? show: what is in effect",
        "completions": "for a shell: bash, zsh or fish",
    },
}
"""Every command and what it does, as ``--help`` groups them."""

EXAMPLES = {
    "sleepctl status": "what happened last night",
    "sleepctl run --force --wait": "sleep now and watch it",
    "sleepctl report": "the newest night, from top to bottom",
    "sleepctl show 8": "why cycle 8 was promoted or rejected",
    "sleepctl rollback": "back to the champion before this one",
    "sleepctl doctor": "why it does not sleep, and what mends it",
    "sleepctl status --json | jq .state": "for a program",
}
VARIABLES = {
    "SLEEPD_SOCKET": "the control socket, where --socket is not given",
    "SLEEPD_CONFIG": "the configuration file, where --config is not given",
    "SLEEPD_SECTION_KEY": "a key of the configuration, such as SLEEPD_LOG_LEVEL",
    "NO_COLOR": "set: no colour, on a terminal too",
}

_OFFLINE = """\
With the daemon down it shows what the daemon last wrote, says so on stderr,
and exits with 3; in JSON, "is_live" is false then."""

EPILOGS = {
    "status": _OFFLINE,
    "history": _OFFLINE,
    "show": _OFFLINE,
    "report": f"""\
--limit counts the experiences of which the text is shown, the most salient
first, at most 200. The service keeps no texts: they are read in the buffer, and
what is no longer there, or has another text by now, is listed by its id.
{_OFFLINE}""",
    "check": """\
Exits with 0 either way. With --apply: 0 when a cycle was started, 5 when there
is nothing to do, 7 while a cycle is running.""",
    "events": """\
Ctrl-C ends it with 130. When the daemon goes away, that is said, and it exits
with 3; what happened meanwhile is in the log: sleepctl logs. With --json each
line is one event.""",
    "logs": """\
Shows the journal, through journalctl, which decides who may read it. Where the
daemon runs outside systemd, it says where the log goes, and exits with 4.""",
    "doctor": """\
Looks at configuration, units, socket, daemon, state, disk, buffer, device,
model, chat template, memory, clock and leftovers, also with the daemon down. As
root it tries what the daemon's user may read and write; else it says what it
cannot know.
Exits with 1 when anything fails; a warning leaves 0.""",
    "tokens": """\
The text comes from the buffer, through the daemon, and needs the operator
group; the tokens come from the worker's interpreter and the base's own
tokenizer and chat template, as a cycle would make them; no weights are read.
Control tokens stand in brackets, so that no text can look like one. Exits with
1 where the experience cannot be trained, and says why.""",
    "reload": """\
Says which keys changed. A file that says something wrong is refused, and the
old configuration stays in force.""",
    "setup-buffer": """\
Writes conf.d/50-buffer.toml beside the configuration and, for a buffer in a
home, 50-buffer.conf beside the unit, which shows the service that directory
(and nothing else of the home), read-only. A home may have mode 0700; the file
itself must be readable. As root for the system's service, without root for one
that ./install.sh --user made.""",
    "quarantine": QUARANTINE_EPILOG,
    "completions": """\
Installed by ./install.sh. By hand, for bash:
  source <(sleepctl completions bash)""",
    "metric": """\
Your own measurement on a cycle's adapter, after its verdict. A limit of yours
on it (promotion.limits) is held against it; where the champion breaks one, it
is rolled back at once, and that is said.""",
    "config": """\
Each of these overrides single keys of those before it: the defaults, the
configuration file, conf.d/*.toml beside it in lexical order, the environment
(SLEEPD_TRIGGERS_MIN_EXPERIENCES=10). `check` looks at all of them; `show`,
which may be left out, says where each value came from. A service has an
environment of its own: systemctl show -p Environment sage-sleepd""",
    "run": """\
Exits with 0 when a cycle was started; with --wait when it ended with a verdict
(promoted, rejected or inconclusive: the verdict is said), and with 1 when it
failed or was cancelled. 5: nothing to do. 7: a cycle is running already.
Ctrl-C in --wait detaches with 130; the cycle goes on.""",
}
"""Below the options of a command."""
