"""The texts of ``--help`` and of the manual pages, by command."""

from __future__ import annotations

from .bundle_arguments import BUNDLE_EPILOG, SYNC_EPILOG
from .quarantine_arguments import QUARANTINE_EPILOG
from .worker_host_arguments import WORKER_HOST_EPILOG

GROUPS = {
    "inspect": {
        "status": "state, what the next sleep waits for, champion, last cycles",
        "check": "whether a cycle is due now, and why; --apply starts it when due",
        "why": "the decision now, and how it changed",
        "when": "when the next sleep is expected, from the rate of experiences",
        "simulate": "when it would have slept with --config NEW.toml; --since 30d",
        "decisions": "how the decision changed, with its figures; --since 3d",
        "history": "the cycles, newest first: gain, drift, verdict",
        "report": "one cycle explained: learned, measured, decided, how to undo",
        "show": "every figure of one cycle",
        "web": "the page in a browser: its address, or its token",
        "digest": "what happened since yesterday, in ten lines, for cron",
        "notify": "start your command for each event; sage-sleep-notify runs it",
        "buffer": "counts, salience, what is new, what was skipped and why",
        "tokens": "one experience as the base sees it, and what is supervised",
        "live": "which adapter a running engine really answers with",
        "quarantine": "what is excluded from training and why; show, release or drop",
        "events": "events as they happen, one line each",
        "logs": "what the daemon logged; -f follows the log",
        "doctor": "what may prevent cycles, and the command that fixes it",
        "version": "versions of this program and of the daemon",
    },
    "control": {
        "run": "start a cycle now, if due or forced",
        "cancel": "discard the running cycle",
        "pause": "start no cycle until resumed",
        "resume": "the opposite of pause",
        "rollback": "activate an earlier champion, or the base",
        "rebase": "activate the base (as rollback 0); the next cycle starts from it",
        "tag": "tag a cycle, which keeps its weights",
        "metric": "add or remove a figure of your own for a cycle",
        "export": "write a cycle's adapter for another program: peft, GGUF, merged",
        "bundle": "send a cycle to another machine, or have one of its judged here",
        "sync": "share bundles with other machines; sage-sleep-sync runs it",
        "prune": "remove the weights that are not kept; --dry-run only lists them",
    },
    "set up": {
        "setup-buffer": "set the agent's buffer, and let the service read it",
        "setup-serve": "let the service put adapters into the engine of [serve]",
        "worker-host": "check the machine that cycles run on, or be that machine",
        "import": "copy another program's export into our own JSON lines",
        "reload": "read the configuration again",
        "config": "check FILE: report errors; show: print what is in effect",
        "completions": "completion script for bash, zsh or fish",
    },
}
"""Every command and what it does, as ``--help`` groups them."""

EXAMPLES = {
    "sleepctl status": "state and last cycles",
    "sleepctl run --force --wait": "start a cycle now and watch it",
    "sleepctl report": "the newest cycle, explained",
    "sleepctl show 8": "why cycle 8 was promoted or rejected",
    "sleepctl rollback": "back to the previous champion",
    "sleepctl doctor": "why no cycle starts, and how to fix it",
    "sleepctl status --json | jq .state": "for scripts",
}
VARIABLES = {
    "SLEEPD_SOCKET": "the control socket, where --socket is not given",
    "SLEEPD_CONFIG": "the configuration file, where --config is not given",
    "SLEEPD_SECTION_KEY": "a key of the configuration, such as SLEEPD_LOG_LEVEL",
    "NO_COLOR": "if set: no colour, even on a terminal",
}

_OFFLINE = """\
While the daemon is down it shows what the daemon last wrote, notes that on
stderr, and exits with 3; in JSON, "is_live" is then false."""

EPILOGS = {
    "status": _OFFLINE,
    "history": f"""\
The gain is the fall of the holdout loss in nats per token. n<8: a low sample,
with fewer than 8 held-out experiences. probation: later experiences decide.
--strategies: of the newest --limit cycles, those with a verdict by strategy,
with 95 % intervals over the cycles, and by how much their gains differ; of
cycles that ran as a pair (run --strategies), on the same experiences.
{_OFFLINE}""",
    "show": _OFFLINE,
    "report": f"""\
--limit is the number of experiences shown with their text, the most salient
first, at most 200. These texts are read from the buffer.
An experience that was removed or changed since is listed by its id only.
--html writes the page of the cycle, and needs the extra [web].
{_OFFLINE}""",
    "web": """\
Prints the address of the page where it answers: sage-sleep-web.socket serves
it. Where nothing answers, it serves the page itself until Ctrl-C. --token reads
the service's token as root, else your own. Where the page of another daemon
answers, give yours an address with --address. Needs the extra [web].""",
    "notify": """\
notify.command gets the event as text in the first line of its standard input,
and as JSON in the second. Each event is told once, also after a restart; at the
first start nothing of the past is. Ctrl-C ends it.""",
    "digest": """\
For cron: sleepctl digest | mail -s sage-sleepd you. It asks the daemon, and
changes nothing.""",
    "check": """\
Exits with 0, due or not. With --apply: 0 when a cycle was started, 5 when there
is nothing to do, 7 while a cycle is running.""",
    "simulate": """\
The daemon records its facts (counts, vetoes) when they change. They are decided
anew with the [triggers] of the file, and with those in force; marks of
breakthroughs count as they were configured then. Nothing is changed.
--since: 30 days by default.""",
    "events": """\
Ctrl-C ends it with 130. When the daemon stops, it reports that and exits
with 3; later events are in the log: sleepctl logs. With --json each
line is one event.""",
    "logs": """\
Shows the journal through journalctl, which decides who may read it. If the
daemon runs outside systemd, it reports where the log goes, and exits with 4.""",
    "doctor": """\
Checks configuration, units, socket, daemon, state, disk, buffer, device,
model, chat template, memory, clock and leftovers, even with the daemon down.
As root it tests what the daemon's user may read and write; otherwise it reports
what it cannot check.
Exits with 1 when anything fails; a warning leaves 0.""",
    "tokens": """\
The text comes from the buffer, through the daemon, and needs the operator
group; the tokens come from the worker's interpreter and the base's own
tokenizer and chat template, exactly as a cycle makes them; no weights are read.
Control tokens stand in brackets, so that no text can look like one. Exits with
1 if the experience cannot be trained, and reports why.
With the default strategy a short reply is in half of the times trained behind
this prompt without some of its words: it is then recalled in other words, too.""",
    "live": """\
Asks the engine sixteen prompts of the champion's fingerprint.json, and compares
the log-probabilities of its answers with those of the base, the parent and the
cycle. Needs to read the state directory: the group of the service may. The
figures are distances in nats. Exits with 0 if the engine was proved to run what
is in use, with 1 if not, with 3 if nobody answers there, and with 4 if no
checkpoint has a fingerprint.""",
    "export": """\
Writes a new directory with the adapter, README.md and export.json, which name
the base and what was measured. peft: the files as they were measured. gguf: an
adapter for llama.cpp. merged: base and adapter as one directory of safetensors.
merged-gguf: the same as one GGUF file, with a Modelfile for Ollama. A merged or
a converted file was not measured itself, and the README says so. It reads the
state directory, which the group of the service may, and needs no daemon.""",
    "reload": """\
Reports which keys changed. A file with an error is refused, and the
old configuration stays in force.""",
    "setup-buffer": """\
Writes conf.d/50-buffer.toml beside the configuration and, for a buffer in a
home, 50-buffer.conf beside the unit, which lets the service read that directory
(and nothing else of the home), read-only. A home may have mode 0700; the file
itself must be readable. Run it as root for the system service, without root for
one that ./install.sh --user made.""",
    "setup-serve": """\
Set [serve] in the configuration first. For llama-restart it writes a drop-in
of the engine's unit, and a polkit rule that lets the service restart this one
unit; for llama-router a file of presets, where there is none. It starts nothing
and shows the commands that come next.""",
    "bundle": BUNDLE_EPILOG,
    "sync": SYNC_EPILOG,
    "worker-host": WORKER_HOST_EPILOG,
    "quarantine": QUARANTINE_EPILOG,
    "completions": """\
Installed by ./install.sh. By hand, for bash:
  source <(sleepctl completions bash)""",
    "import": """\
Each reply that can be learned becomes one line with what stood before it, and
with the rating that stands beside the file (feedback.jsonl). What was one
conversation stays one: all of it is held out, or none. A line that stands in
the output already is written again; the daemon counts it once. What is left
out, and why, goes to stderr. The formats that are read: config/README.md.""",
    "buffer": """\
--sample shows three experiences with all that stands before the reply, and
needs the operator group.""",
    "metric": """\
Your own measurement of a cycle's adapter, after its verdict. It is compared to
your limit on it (promotion.limits); if the champion breaks the limit, it is
rolled back at once, and the command reports that.""",
    "config": """\
Each of these overrides single keys of those before it: the defaults, the
configuration file, conf.d/*.toml beside it in lexical order, the environment
(SLEEPD_TRIGGERS_MIN_EXPERIENCES=10). `check` checks all of them; `show`,
the default, also prints where each value came from. A service has an
environment of its own: systemctl show -p Environment sage-sleepd""",
    "run": """\
Exits with 0 when a cycle was started; with --wait when it ended with a verdict
(promoted, rejected or inconclusive; the verdict is shown), and with 1 when it
failed or was cancelled. 5: nothing to do. 7: a cycle is running already.
Ctrl-C in --wait detaches with 130; the cycle continues.
--strategies trains two cycles, one after the other, and judges them together;
it takes twice the time. Their verdicts come after the second was measured.""",
}
"""Below the options of a command."""
