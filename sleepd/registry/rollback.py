"""Putting an earlier champion in use, or one that was rolled back."""

from __future__ import annotations

from sleepd.cycle import State, undo_command
from sleepd.errors import NotFound, NothingToDo
from sleepd.store.checkpoints import ADOPTED_VERDICT, Checkpoints, has_weights
from sleepd.store.sqlite.ledger import Ledger


def find_champion(to: int | None, ledger: Ledger, checkpoints: Checkpoints) -> tuple[int, int | None]:
    """The champion that is meant (0: the base itself), and the one in use (None: the base itself).

    ``to`` is its cycle; 0: the base itself; None: the champion before the one in use.

    Raises:
        NotFound: there is no such champion.
        NothingToDo: it is in use already.
    """
    was = checkpoints.champion()
    if to is None:
        if was is None:
            raise NothingToDo("the base itself is in use", hint="sleepctl history")
        to = champion_before(was, ledger, checkpoints) or 0
    if to == (was or 0):
        raise NothingToDo(f"{'the base' if to == 0 else f'cycle {to}'} is in use already", hint="sleepctl history")
    champions = [*checkpoints.adopted(), *ledger.promoted()]
    if to != 0 and to not in champions:
        raise NotFound(f"cycle {to} never was a champion", hint="sleepctl history shows which were promoted")
    path = checkpoints.find(to)
    if to != 0 and (path is None or not has_weights(path)):
        raise NotFound(f"the weights of cycle {to} were pruned", hint="sleepctl history shows which are kept")
    return to, was


def champion_before(champion: int, ledger: Ledger, checkpoints: Checkpoints) -> int | None:
    """The one that a rollback of ``champion`` activates; None: the base itself.

    It is the newest one below that was not rolled back and has its weights; adopted ones are among them.
    """
    older = [cycle for cycle in (*checkpoints.adopted(), *ledger.active()) if cycle < champion]
    paths = ((cycle, checkpoints.find(cycle)) for cycle in sorted(older, reverse=True))
    return next((cycle for cycle, path in paths if path and has_weights(path)), None)


def undo_of(cycle: int, ledger: Ledger, checkpoints: Checkpoints) -> str:
    """The command that undoes a cycle: what was in use before it, or stood nearest to it; empty: nothing of it is.

    Raises:
        NotFound: there is no such cycle.
    """
    if cycle in checkpoints.adopted():
        state, is_active = ADOPTED_VERDICT, cycle == checkpoints.champion()
    else:
        state = ledger.state(cycle)
        is_active = state is State.PROMOTED and not ledger.summary(cycle).is_rolled_back
    before = champion_before(cycle, ledger, checkpoints) if is_active else None
    return undo_command(cycle, state, is_active=is_active, champions=[] if before is None else [before])


def activate(to: int, ledger: Ledger, checkpoints: Checkpoints) -> None:
    """Everything up to ``to`` stands, everything above is retired; the link moves while both ends exist."""
    line = [cycle for cycle in ledger.lineage(to or None) if checkpoints.find(cycle)]
    for cycle in line:
        checkpoints.restore(cycle)
    checkpoints.promote(to or None)
    above = ledger.promoted(above=to)
    for cycle in above:
        checkpoints.retire(cycle)
    ledger.mark_rolled_back(above, is_rolled_back=True)
    ledger.mark_rolled_back(line, is_rolled_back=False)
