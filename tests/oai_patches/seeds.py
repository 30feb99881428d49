"""Writes the vectors of wire/vectors as inputs of fuzz_receive: ``python -m tests.oai_patches.seeds DIR``."""

from __future__ import annotations

import json
import sys
from pathlib import Path

VECTORS = Path(__file__).parents[2] / "wire" / "vectors" / "to_gnb.json"
STEP = 0x13
"""50 ms later, then NR slots and a socket that takes everything: see fuzz_receive.c."""


def write(folder: Path) -> list[Path]:
    folder.mkdir(parents=True, exist_ok=True)
    written = []
    for i, vector in enumerate(json.loads(VECTORS.read_text())["vectors"]):
        parts = [(p, 1) if isinstance(p, str) else p for p in vector["bytes"]]
        data = b"".join(bytes.fromhex(text) * times for text, times in parts)
        if len(data) < 1 << 16:
            path = folder / f"vector-{i:03}"
            path.write_bytes(bytes([STEP]) + len(data).to_bytes(2, "little") + data)
            written.append(path)
    return written


if __name__ == "__main__":
    print(len(write(Path(sys.argv[1]))), "seeds")
