"""No held-out reply stands in a trained context. Pure.

The split holds whole conversations together, as far as a log says what belongs together. A log of requests whose
history was shortened does not: the same reply stands in the contexts of later requests that begin elsewhere. So each
trained context is compared with what is held out in the cycle, and what comes up to a held-out reply is cut away.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence

import msgspec

from sleepd.buffer.experience import Experience, content_hash_of, hash_text, said_digest
from sleepd.protocol.chat_example import Message


def answers(context: Sequence[Message]) -> list[tuple[int, bytes]]:
    """Each reply of a context as its place, and the hash of the reply and of the message before it."""
    return [
        (place, said_digest(context[place - 1]) + said_digest(message))
        for place, message in enumerate(context)
        if message.role == "assistant" and place > 0
    ]


def answers_of(held_out: Iterable[Experience]) -> set[bytes]:
    """The hashes of held-out replies, as ``answers`` has those of a context."""
    found = set[bytes]()
    for one in held_out:
        reply = Message(role="assistant", text=one.response, calls=one.calls)
        found.update(digest for _, digest in answers([*one.messages, reply])[-1:])
    return found


def without_held_out(experience: Experience, held_out: Collection[bytes]) -> Experience | None:
    """The experience with a context that holds none of these replies; the same object where it holds none.

    None: the last message of the user stands before the held-out reply, so that nothing is left to answer.
    """
    found = [place for place, digest in answers(experience.context) if digest in held_out]
    if not found:
        return experience
    context = experience.context
    head = next((place for place, one in enumerate(context) if one.role != "system"), len(context))
    start = next((place for place in range(found[-1], len(context)) if context[place].role == "user"), None)
    if start is None:
        return None
    return msgspec.structs.replace(
        experience,
        context=(*context[:head], *context[start:]),
        unmasked=experience.unmasked or hash_text(content_hash_of(experience)),
        conversation=experience.conversation or hash_text(content_hash_of(experience)),
    )
