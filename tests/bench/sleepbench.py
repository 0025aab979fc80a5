"""What a strategy learns, night after night: real buffers played back in time order, and a hundred facts to recall.

    python tests/bench/sleepbench.py replay BUFFER.json… --strategy consolidate --seed 1 --out FILE
    python tests/bench/sleepbench.py recall --strategy consolidate --seed 1 --out FILE
    python tests/bench/sleepbench.py --table FILE…

``replay`` plays a buffer (a JSON array; several are joined in time order) as the daemon would meet it: sessions of 16
eligible experiences (salience of at least 0.6), after each a night that trains what is new and replays what is known
(``policy.selecting.selection``), while about a fifth is held out (``policy.selecting.holdout``). After each night is
measured, on the adapter as it would be kept:

- gain: reply loss on the *next* session, of which no copy was seen, base minus adapter, nats per supervised token;
- drift: KL from the base on the base's own answers to the ``probe`` prompts, which neither regularise nor watch;
- loops: greedy replies to the next session's prompts that ``sleepd.policy.judging.repetition`` finds to run in a loop;
- seconds (wall and processor), tokens and steps of the training alone, looks included. With ``--count`` steps and
  tokens are counted, and nothing is trained.

``--replay-tokens`` is ``training.replay_tokens``.

``recall`` teaches an invented agent 20 facts a night (``--facts``) for five nights, each in six wordings, and asks all
that was taught so far in a seventh (``facts.py``). With ``--changed`` the first night's facts are told otherwise in
the third, with the same questions. ``--told-by user`` has the user state a fact, ``aside`` the middle of a long reply.
``--traps`` also asks whether a statement is true: a true one of each fact, and one that was never told. Each night that
follows one in this run, and the first, is also held against the two rules of promotion, the adapter of the night before
being the champion. ``--in-context`` and ``--retrieval`` train nothing: the base is asked with all that was told in the
prompt, or with the four that fit the question best.

``--strategy gentle`` is the older trainer's recipe as it ran: float32, one experience at a time, loss over everything
times salience, the whole history every night. ``--set NAME=VALUE`` changes a strategy (a list as ``A,B``).
``--lineage merge`` is no strategy of ours: the adapter is merged into the base and a fresh one trained upon it; nor is
``--sample-by-salience``. Every night is one JSON line in
``--out``; ``--table`` makes a Markdown table of them, with bootstrap intervals over the experiences.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import sys
import time
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec

sys.path.append(str(Path(__file__).parents[2]))

from sleepd.buffer.experience import Experience
from sleepd.config.schema import TrainingConfig
from sleepd.config.strategies import find_strategy
from sleepd.policy.judging.promotion import Gates, judge
from sleepd.protocol.evidence import CappedLosses, LossPair, TrainedLoss
from sleepd.protocol.strategy import Strategy
from tests.bench.bench_first_cycle import SYSTEM_PROMPT
from tests.bench.facts import SYSTEM_PROMPT as FACTS_PROMPT
from tests.bench.facts import Fact, as_experiences, facts, is_right, says_yes, told_otherwise, yes_no
from tests.bench.figures import table
from tests.bench.judgebench import draw, harmless
from tests.bench.memory_in_prompt import in_context, retrieval
from tests.bench.replay import Night, nights, read_buffers, sampled_by_salience, sessions_of

Losses = Mapping[str, Any]
"""By the id of an experience, what was measured on it."""
NAMES = ("base", "parent", "candidate")
REPEATED = 24
"""Replayed experiences that a verdict rests on."""
FACTS_A_NIGHT = 20
CHANGE = 3
"""The night that ``--changed`` tells otherwise in."""
ANSWER_TOKENS = 32
YES_TOKENS = 8
_NOT_SHOWN = ("pairs", "capped", "command", "wrong")


def main() -> None:
    """Run one series of nights, or make the table."""
    arguments = _arguments()
    if arguments.table:
        sys.stdout.write(table(arguments.table))
        return
    import torch

    torch.set_num_threads(arguments.threads)
    strategy = find_strategy(arguments.strategy)
    changes = {name: value.split(",") if "," in value else value for name, value in arguments.set}
    strategy = msgspec.convert({**msgspec.to_builtins(strategy), **changes}, Strategy, strict=False)
    if strategy.name == "gentle":
        strategy = msgspec.structs.replace(strategy, lineage="retrain")  # for the selection: all of the history
    run = _replay if arguments.task == "replay" else _recall
    run(arguments, strategy)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("task", nargs="?", choices=("replay", "recall"), default="replay")
    parser.add_argument("buffer", type=Path, nargs="*")
    parser.add_argument("--strategy", default="consolidate")
    parser.add_argument(
        "--set", type=_setting, action="append", default=[], metavar="NAME=VALUE", help="change the strategy"
    )
    parser.add_argument(
        "--sample-by-salience", action="store_true", help="an experience is in that share of the epochs"
    )
    parser.add_argument("--lineage", choices=("merge",), help="beside those that a strategy may have")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--nights", type=int, default=5)
    parser.add_argument("--only", type=int, nargs="*", help="retraining alone: run just these nights")
    parser.add_argument("--count", action="store_true", help="replay: count steps and tokens, train nothing")
    parser.add_argument(
        "--replay-tokens", type=int, default=TrainingConfig().replay_tokens, help="most replayed tokens of a cycle"
    )
    parser.add_argument("--told", type=int, default=6, help="recall: in how many wordings a fact is told, 1 to 6")
    parser.add_argument("--facts", type=int, default=FACTS_A_NIGHT, help="recall: so many are told before each night")
    parser.add_argument("--told-by", choices=("agent", "aside", "user"), default="agent", help="recall: who states it")
    parser.add_argument("--changed", action="store_true", help="recall: night 3 tells otherwise what night 1 told")
    remembering = parser.add_mutually_exclusive_group()
    remembering.add_argument("--in-context", action="store_true", help="recall: all in the prompt, no training")
    remembering.add_argument("--retrieval", action="store_true", help="recall: the best four in it")
    parser.add_argument("--traps", type=int, default=0, help="recall: ask about so many facts whether they are true")
    parser.add_argument("--no-holdout", action="store_true", help="nothing is held out: no cycle of the daemon is so")
    parser.add_argument("--scales", type=float, nargs="*", default=[], help="measure the adapter's effect times this")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--base", default="embedded", help="the base model, as model.base names it")
    parser.add_argument("--models", type=Path, required=True, help="keeps the converted base and its answers")
    parser.add_argument("--label", help="name of this series in the table; otherwise strategy and changes")
    parser.add_argument("--out", type=Path, help="one JSON line a night is appended here")
    parser.add_argument("--table", type=Path, nargs="+", metavar="FILE")
    if "--table" in sys.argv:
        parser.set_defaults(models=Path())
        return parser.parse_args([*sys.argv[1:], "--models", "."])
    return parser.parse_args()


def _setting(text: str) -> list[str]:
    name, is_set, value = text.partition("=")
    if not is_set:
        raise argparse.ArgumentTypeError(f"{text!r} is not NAME=VALUE")
    return [name, value]


def _replay(arguments: argparse.Namespace, strategy: Strategy) -> None:
    bench = _bench(arguments, strategy, SYSTEM_PROMPT)
    sessions = sessions_of(read_buffers(arguments.buffer))
    played = _nights(arguments, sessions, strategy)
    if arguments.sample_by_salience:
        played = (
            dataclasses.replace(night, examples=[sampled_by_salience(one) for one in night.examples])
            for night in played
        )
    for night in played:
        if night.number > arguments.nights or not night.tomorrow:
            return
        if arguments.only and night.number not in arguments.only:
            continue
        if arguments.count:
            steps, tokens = bench.counted(night, strategy, arguments.seed + night.number)
            _tell(arguments, night, {"replayed": len(night.replayed), "steps": steps, "tokens": tokens}, {})
            continue
        base, base_loops = bench.base_losses(night.tomorrow), bench.base_loops(night.tomorrow)
        cost = bench.sleep(night, strategy, arguments.seed + night.number, is_merged=arguments.lineage == "merge")
        figures = _next_session(bench, night, base)
        for scale in arguments.scales:
            bench.scale(scale)
            scaled = _next_session(bench, night, base)
            figures.setdefault("scaled", []).append([scale, scaled["gain"], bench.drift()])
            bench.scale(1 / scale)
        loops, replies = bench.loops(night.tomorrow)
        _tell(
            arguments,
            night,
            cost,
            figures | {"drift": bench.drift(), "loops": loops, "replies": replies, "base_loops": base_loops},
        )


def _nights(
    arguments: argparse.Namespace, sessions: Sequence[Sequence[Experience]], strategy: Strategy
) -> Iterable[Night]:
    tokens, holds_out = arguments.replay_tokens, not arguments.no_holdout
    return nights(sessions, strategy, arguments.seed, replay_tokens=tokens, holds_out=holds_out)


def _next_session(bench: Any, night: Night, base: dict[str, Any]) -> dict[str, Any]:
    found = bench.losses(night.tomorrow)
    gained = sum(base[id_].total - one.total for id_, one in found.items())
    return _pairs(found, base, base, found) | {"gain": gained / sum(one.tokens for one in found.values())}


def _recall(arguments: argparse.Namespace, strategy: Strategy) -> None:
    bench = _bench(arguments, strategy, FACTS_PROMPT)
    every = facts()
    taught = [every[at : at + arguments.facts] for at in range(0, len(every), arguments.facts)]
    renewed = told_otherwise(taught[0]) if arguments.changed else []
    told = [*taught[: CHANGE - 1], taught[CHANGE - 1] + renewed, *taught[CHANGE:]]
    sessions = [
        [one for fact in night for one in as_experiences(fact, arguments.told, arguments.told_by)] for night in told
    ]
    if arguments.in_context or arguments.retrieval:
        _remember(arguments, bench, taught, sessions)
        return
    for night in _nights(arguments, sessions, strategy):
        if night.number > arguments.nights:
            return
        if arguments.only and night.number not in arguments.only:
            continue
        unseen = [*night.held_out, *night.tomorrow]
        measured = [*unseen, *night.new, *night.replayed[:REPEATED]]
        before = bench.losses_of_both(measured) if bench.is_adapted or night.number == 1 else None
        cost = bench.sleep(night, strategy, arguments.seed + night.number, is_merged=arguments.lineage == "merge")
        known = [fact for facts_ in taught[: night.number] for fact in facts_]
        if renewed and night.number >= CHANGE:
            known[: arguments.facts] = renewed
        replies = bench.replies([fact.asked for fact in known], ANSWER_TOKENS)
        right = [is_right(reply, fact) for reply, fact in zip(replies, known, strict=True)]
        held_out = {one.response for one in night.held_out}
        states = [[one.response for one in as_experiences(fact, arguments.told, arguments.told_by)] for fact in known]
        figures: dict[str, Any] = {
            "recalled": sum(right),
            "asked": len(right),
            "first_night": sum(right[: arguments.facts]),
        }
        figures["unlearned"] = sum(set(replies_) <= held_out for replies_ in states)
        if renewed and night.number >= CHANGE:
            figures["outdated"] = sum(map(is_right, replies[: arguments.facts], taught[0]))
        if arguments.traps:
            figures["said_yes"] = _said_yes(bench, yes_no(known, arguments.traps))
        if before is not None:
            three = (*before, bench.losses(measured))
            figures |= _judged(night, *three) | _pairs([one.id for one in unseen], *three)
        wrong = [[f.asked, f.key, r] for f, r, ok in zip(known, replies, right, strict=True) if not ok]
        _tell(arguments, night, cost, figures | {"drift": bench.drift(), "wrong": wrong})


def _remember(
    arguments: argparse.Namespace, bench: Any, taught: Sequence[list[Fact]], sessions: Sequence[list[Experience]]
) -> None:
    """What the base answers with what was told in its prompt, and what that costs."""
    for number in arguments.only or range(1, arguments.nights + 1):
        told = [one for session in sessions[:number] for one in session]
        known = [fact for facts_ in taught[:number] for fact in facts_]
        remember = (in_context if arguments.in_context else retrieval)(told)
        prompts, used = [remember(fact.asked) for fact in known], time.process_time()
        replies = bench.replies(prompts, ANSWER_TOKENS)
        line = {
            "label": "in context" if arguments.in_context else "retrieval",
            "task": "remember",
            "buffer": "facts",
            "seed": arguments.seed,
            "night": number,
            "recalled": sum(map(is_right, replies, known)),
            "asked": len(known),
            "prompt_tokens": round(bench.mean_tokens(prompts)),
            "tokens_without": round(bench.mean_tokens([fact.asked for fact in known])),
            "seconds_a_question": round((time.process_time() - used) / len(known), 2),
        }
        _write(arguments, line, line)


def _said_yes(bench: Any, asked: Sequence[tuple[str, str]]) -> dict[str, int]:
    """How often a true statement was called true, and one that was never told, by the adapter and by the base."""
    found = {"asked": len(asked)}
    for side, statements in zip(("true", "never_told"), zip(*asked, strict=True), strict=True):
        found[side] = sum(map(says_yes, bench.replies(statements, YES_TOKENS)))
        with bench.as_base():
            found[f"{side}_base"] = sum(map(says_yes, bench.replies(statements, YES_TOKENS)))
    return found


def _judged(night: Night, base: Losses, parent: Losses, candidate: Losses) -> dict[str, Any]:
    """The verdict on the held-out and the newly trained experiences, all else taken as harmless."""
    held_out = [one.id for one in night.held_out]

    def pair(id_: str) -> LossPair:
        three = (base[id_], parent[id_], candidate[id_])
        whole, capped = (
            {n: getattr(m, of) for n, m in zip(NAMES, three, strict=True)} for of in ("mean", "capped_mean")
        )
        return LossPair(id=id_, tokens=candidate[id_].tokens, **whole, capped=CappedLosses(**capped))

    repeated = [pair(one.id) for one in night.replayed[:REPEATED]]
    told = [
        TrainedLoss(id=id_, tokens=candidate[id_].tokens, parent=parent[id_].mean, candidate=candidate[id_].mean)
        for id_ in (one.id for one in night.new)
    ]
    pool = harmless("", [pair(id_) for id_ in held_out], told, repeated)
    verdict = judge(draw(pool, len(held_out), 0), Gates(has_champion=bool(repeated)))
    return {"verdict": f"{verdict.outcome}: {verdict.reason}"}


def _pairs(ids: Iterable[str], base: Losses, older: Losses, newer: Losses) -> dict[str, Any]:
    """Of each experience its tokens and the sums of its losses; and, of base, older and newer, of its capped ones."""
    ids = list(ids)
    return {
        "pairs": [[id_, newer[id_].tokens, older[id_].total, newer[id_].total] for id_ in ids],
        "capped": [[base[id_].capped, older[id_].capped, newer[id_].capped] for id_ in ids],
    }


def _bench(arguments: argparse.Namespace, strategy: Strategy, system_prompt: str) -> Any:
    from tests.bench.recipes import Bench

    arguments.models.mkdir(parents=True, exist_ok=True)
    return Bench(arguments.base, arguments.models, system_prompt, is_older=strategy.name == "gentle")


def _tell(arguments: argparse.Namespace, night: Night, cost: Any, figures: dict[str, Any]) -> None:
    line = {
        "label": arguments.label or " ".join([arguments.strategy, *("=".join(one) for one in arguments.set)]),
        "command": " ".join(sys.argv[1:]),
        "task": arguments.task,
        "buffer": "+".join(one.stem for one in arguments.buffer) or "facts",
        "seed": arguments.seed,
        "night": night.number,
        "trained": len(night.to_train),
        "held_out": len(night.held_out),
        **msgspec.to_builtins(cost),
        **figures,
    }
    _write(arguments, line, {key: value for key, value in line.items() if key not in _NOT_SHOWN})


def _write(arguments: argparse.Namespace, line: Mapping[str, Any], shown: Mapping[str, Any]) -> None:
    sys.stdout.write(f"{json.dumps(shown)}\n")
    sys.stdout.flush()
    if arguments.out:
        with arguments.out.open("a", encoding="utf-8") as out:
            out.write(json.dumps(line) + "\n")


if __name__ == "__main__":
    if "--table" not in sys.argv:
        from sleepd.worker.environment import prepare_environment

        prepare_environment()
    main()
