"""Tests of what a checkpoint's documents keep of the ledger, so that a lost ledger can be made from them."""

from __future__ import annotations

from array import array
from pathlib import Path

import msgspec

from sleepd.buffer.experience import id_hash
from sleepd.policy.judging.promotion import Gates, judge
from sleepd.protocol.checkpoint.checkpoint_files import Lineage
from sleepd.protocol.job import Role
from sleepd.store.checkpoint_documents import assignments_in, seen_in, write_documents
from sleepd.store.sqlite.ledger import Ledger
from sleepd.store.sqlite.ledger_rows import SplitAssignment
from tests.test_ledger import BIG, NOW, plan, run
from tests.test_promotion import report


def placed(id_: str, group: int, role: Role, conversation: int) -> SplitAssignment:
    return SplitAssignment(id_, id_hash(id_), group, role, conversation)


def test_lineage_holds_what_the_ledger_holds(tmp_path: Path) -> None:
    """Role, content and conversation of each experience come back, with hashes of 64 bits, and what was released."""
    ledger = Ledger(tmp_path / "state.db")
    first = plan(1)
    run(ledger, msgspec.structs.replace(first, assignments=[placed("later", 4, "holdout", 4)]))
    assignments = [
        placed("alone", BIG, "train", BIG),
        placed("turn", 2, "replay", 2**63),
        placed("next turn", 3, "holdout", 2**63),
        placed("later", 4, "train", 4),
    ]
    seen = array("Q", [1, BIG])
    run(ledger, msgspec.structs.replace(first, cycle=2, parent=1, assignments=assignments, seen=seen))
    verdict = judge(report(), Gates())
    documents = write_documents(ledger, ledger.summary(2), report(), verdict, base="b", judged_at=NOW)
    lineage = msgspec.json.decode(documents["lineage.json"], type=Lineage)
    assert set(assignments_in(lineage)) == set(ledger.assignments(2)) == set(assignments)
    assert seen_in(lineage) == ledger.seen(2) == seen
    assert [(one.id, one.conversation) for one in lineage.trained] == [("alone", ""), ("later", "")]
    assert (lineage.cycle, lineage.parent, lineage.released) == (2, 1, ["later"])
