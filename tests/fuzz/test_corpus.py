"""Every input of the corpus, and every cut of it, raises what the decoder documents and nothing else."""

from __future__ import annotations

import logging

import pytest

from tests.fuzz import CORPUS, MAX_BYTES
from tests.fuzz.decoders import DECODERS
from tests.fuzz.seeds import seeds

FILES = sorted(p for p in CORPUS.glob("*/*") if p.is_file())


def test_every_decoder_has_a_corpus() -> None:
    assert {p.parent.name for p in FILES} == DECODERS.keys()


def test_the_corpus_is_what_the_script_writes() -> None:
    kept = {(p.parent.name, p.read_bytes()) for p in FILES}
    assert {(name, data) for name, data in seeds() if len(data) <= MAX_BYTES} <= kept


@pytest.mark.parametrize("name", sorted(DECODERS))
def test_the_corpus_cut_anywhere_raises_nothing_else(name: str) -> None:
    logging.getLogger("controller.links.ran_protocol").setLevel(logging.CRITICAL)
    decoder = DECODERS[name]
    taken = 0
    for path in FILES:
        if path.parent.name == name:
            data = path.read_bytes()
            taken += decoder.taken(data)
            for end in range(0, len(data), max(1, len(data) // 64)):
                decoder(data[:end])
    assert taken, "no input of the corpus is a valid one"
