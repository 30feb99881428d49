"""Coverage-guided fuzzing of the decoders: ``python -m tests.fuzz``; its inputs are tests too."""

from pathlib import Path

CORPUS = Path(__file__).parent / "corpus"
MAX_BYTES = 4096
"""Of an input."""
