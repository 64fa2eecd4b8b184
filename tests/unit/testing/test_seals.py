# SPDX-License-Identifier: Apache-2.0
"""What a seal of the corpus stands for, and what a sample leaves out."""

from __future__ import annotations

from pathlib import Path

import pytest

from lamina.testing import sample
from lamina.testing.corpus import parse_cases, read_seals, write_seals
from lamina.testing.peers import Built, Peers

CASE = "## a: first\n--- context\n{context}\n--- Dockerfile\nFROM scratch\nCOPY . /\n"
BASE = {"/bin/sh type": "f", "/bin/sh content": '"of this host"'}
FILE = {"/f type": "f", "/f mode": "0644", "/f owner": "0:0", "/f content": '"x"'}


@pytest.fixture
def peers(tmp_path: Path) -> Peers:
    made = Peers(tmp_path)
    made._base = BASE
    return made


def test_every_change_of_the_case_or_of_what_was_made_has_another_seal(peers: Peers) -> None:
    (case,) = parse_cases(CASE.format(context="one"), file="a.txt")
    (other,) = parse_cases(CASE.format(context="two"), file="a.txt")
    seals = {
        peers._seal(case, Built(facts=FILE)),
        peers._seal(other, Built(facts=FILE)),
        peers._seal(case, Built(refused="no")),
        *(peers._seal(case, Built(facts=FILE | {fact: "changed"})) for fact in FILE),
        *(
            peers._seal(case, Built(facts=FILE | {more: "1"}))
            for more in ("/g type", "Config.User")
        ),
    }
    assert len(seals) == 3 + len(FILE) + 2


def test_seal_is_the_same_on_another_base(peers: Peers) -> None:
    (case,) = parse_cases(CASE.format(context="one"), file="a.txt")
    here = peers._seal(case, Built(facts=BASE | FILE))
    peers._base = {name: f"{text} and another" for name, text in BASE.items()}
    assert peers._seal(case, Built(facts=peers._base | FILE)) == here


def test_seals_are_read_as_written(tmp_path: Path) -> None:
    seals = {"b/two": "2" * 16, "a/one": "1" * 16}
    write_seals(tmp_path, seals)
    assert read_seals(tmp_path) == seals


def test_samples_of_other_seeds_reach_everything(monkeypatch: pytest.MonkeyPatch) -> None:
    names = {f"case{number}" for number in range(100)}
    monkeypatch.setattr(sample, "WHOLE", False)
    chosen = []
    for seed in range(100):
        monkeypatch.setattr(sample, "SEED", str(seed))
        chosen.append({name for name in names if sample.is_chosen(name, one_in=8)})
        assert chosen[-1] == {name for name in names if sample.is_chosen(name, one_in=8)}
    assert set.union(*chosen) == names
    assert max(map(len, chosen)) < 40
    monkeypatch.setattr(sample, "WHOLE", True)
    assert {name for name in names if sample.is_chosen(name, one_in=8)} == names
