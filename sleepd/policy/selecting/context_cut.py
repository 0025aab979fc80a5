"""No held-out reply stands in a trained context. Pure.

The split holds whole conversations together, as far as a log says what belongs together. A log of requests whose
history was shortened does not: the same reply stands in the contexts of later requests that begin elsewhere. So each
trained context is compared with all held-out replies of the buffer, and what comes up to one of them is cut away.
"""

from __future__ import annotations

from collections.abc import Collection

import msgspec

from sleepd.buffer.experience import Experience, content_hash_of, hash_text
from sleepd.buffer.reply_digest import answers, governing


def without_held_out(experience: Experience, held_out: Collection[int]) -> Experience | None:
    """The experience with a context that holds none of these replies; the same object where it holds none.

    None: the last message of the user stands before the held-out reply, so that nothing is left to answer.

    Args:
        experience: what is to be trained.
        held_out: the hash of each held-out reply, see ``answers``.
    """
    context, said = experience.context, answers(experience)
    found = [place for place, answer in said if answer in held_out]
    if not found:
        return experience
    start = next((place for place in range(found[-1], len(context)) if context[place].role == "user"), None)
    if start is None:
        return None
    kept = governing(context, start)
    return msgspec.structs.replace(
        experience,
        context=(*kept, *context[start:]),
        answers=tuple(hash_text(answer) for place, answer in said if place > start) if experience.answers else (),
        unmasked=experience.unmasked or hash_text(content_hash_of(experience)),
        conversation=experience.conversation or hash_text(content_hash_of(experience)),
    )
