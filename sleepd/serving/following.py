"""For an agent in Python: a model of transformers that answers with the adapter in use. It needs torch and peft."""

from __future__ import annotations

from pathlib import Path
from typing import Any


class Following:
    """A model, and the adapter that it answers with.

    The link ``current`` is resolved once for each update: what is behind it never changes, the link may at any
    moment. An adapter of the same form takes the place of the last one in its memory; another one is loaded anew.
    """

    def __init__(self, model: Any, state: Path) -> None:
        self.model = model
        self.adapter: Path | None = None
        """The directory of the adapter that answers; None: the base itself."""
        self.state = state
        self._loaded: Path | None = None

    def update(self) -> None:
        """Answer with what ``current`` names now. It reads one link, and loads only what changed.

        Raises:
            OSError: the adapter cannot be read, and until it can be, the base answers; so with the next two.
            ValueError: its configuration is damaged, or it does not fit the model.
            SafetensorError: its weights are damaged.
        """
        while (wanted := self._in_use()) != self.adapter:
            self.adapter = None
            if self._loaded is not None:
                self.model.disable_adapter_layers()
            try:
                if wanted is not None:
                    self._load(wanted)
            except (OSError, ValueError):
                if self._in_use() == wanted:
                    raise
                continue  # it was rolled back and moved away while it was read
            self.adapter = wanted

    def _load(self, wanted: Path) -> None:
        from peft import PeftModel
        from peft.utils.hotswap import hotswap_adapter

        place = str(next(self.model.parameters()).device)
        if self._loaded not in (None, wanted):
            try:
                hotswap_adapter(self.model, str(wanted), "default", torch_device=place)
            except (RuntimeError, ValueError):  # another rank, or other modules
                self.model, self._loaded = self.model.unload(), None
        if self._loaded is None:
            self.model = PeftModel.from_pretrained(self.model, wanted, torch_device=place).eval()
        self._loaded = wanted
        self.model.enable_adapter_layers()

    def _in_use(self) -> Path | None:
        try:
            return (self.state / "current").resolve(strict=True)
        except FileNotFoundError:
            return None


def follow(model: Any, state: Path = Path("/var/lib/sage-sleepd")) -> Following:
    """The model with the adapter that is in use in that state directory; ``update`` it before each reply."""
    following = Following(model, state)
    following.update()
    return following
