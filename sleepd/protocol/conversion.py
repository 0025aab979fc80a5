"""A structure of the core as the structure of the wire with the same field names, and back.

The core knows no wire; who stands between the two (the daemon's views, the command line without a daemon) converts.
"""

from __future__ import annotations

from typing import Any, TypeVar

import msgspec

_T = TypeVar("_T", bound=msgspec.Struct)


def converted(value: msgspec.Struct, kind: type[_T], **more: Any) -> _T:
    """The fields of ``value``, and ``more`` in addition or in their place, as a ``kind``. Values stay as they are.

    Raises:
        TypeError: ``kind`` lacks a field of ``value``, or needs one that neither has.
    """
    return kind(**(msgspec.structs.asdict(value) | more))
