"""Run in the service's place, under its unit, by the worker's interpreter: trains a layer in a number type.

Says in $STATE_DIRECTORY/NAME.json what came of it: ``ok``, or the first line of the error.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

import torch


def main() -> None:
    said = {}
    for name in ("bfloat16", "float32"):
        try:
            layer = torch.nn.Linear(256, 256)
            optimizer = torch.optim.AdamW(layer.parameters())
            before = layer.weight.detach().clone()
            with torch.autocast("cpu", torch.bfloat16, enabled=name == "bfloat16"):
                loss = layer(torch.ones(64, 256)).square().mean()
            loss.backward()
            optimizer.step()
            said[name] = "ok" if not torch.equal(before, layer.weight) else "nothing was learned"
        except RuntimeError as error:
            said[name] = str(error).splitlines()[0]
    Path(os.environ["STATE_DIRECTORY"], f"{sys.argv[1]}.json").write_text(json.dumps(said))


main()
