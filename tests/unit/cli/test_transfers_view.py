# SPDX-License-Identifier: Apache-2.0
"""Blobs on their way: rows, bars, speed, what is left; in every width and with unknown sizes."""

from __future__ import annotations

import io
import json

import pytest

from lamina.cli.ui.jsonl import JsonView
from lamina.cli.ui.plain import PlainView
from lamina.cli.ui.transfers import Transfers, bar
from lamina.cli.ui.tty import LiveView
from lamina.events import Phase, Progress
from lamina.spec.digest import Digest

MB = 1_000_000
A, B, C = (Digest.of(name) for name in (b"a", b"b", b"c"))


def event(
    subject: Digest,
    phase: Phase,
    current: int = 0,
    total: int | None = 40 * MB,
    at: float = 0.0,
    *,
    done: bool = False,
) -> Progress:
    name = f"pulling layer {subject.short()}"
    return Progress(f"pulling {subject}", name, current, total, at, done, None, subject, phase)


def fed(*events: Progress) -> Transfers:
    transfers = Transfers()
    for one in events:
        transfers.feed(one)
    return transfers


def test_a_layer_goes_through_dockers_states() -> None:
    transfers = fed(event(A, Phase.WAITING))
    states = transfers.lines(200)
    for one in (
        event(A, Phase.PULLING, 20 * MB),
        event(A, Phase.UNPACKING, 10 * MB),
        event(A, Phase.PULLING, 40 * MB, done=True),
        event(A, Phase.UNPACKING, 40 * MB, done=True),
    ):
        transfers.feed(one)
        states += transfers.lines(200)
    downloading = f"{A.short()}: Downloading [{'=' * 24}>{' ' * 25}]  20MB/40MB"
    assert states == [
        f"{A.short()}: Waiting",
        downloading,
        downloading,  # it unpacks what is here already; the download is what takes long
        f"{A.short()}: Extracting  [{'=' * 11}>{' ' * 38}]  10MB/40MB",
        f"{A.short()}: Pull complete",
    ]


def test_what_is_there_and_what_was_not_unpacked() -> None:
    transfers = fed(
        event(A, Phase.PRESENT, 40 * MB, done=True), event(B, Phase.PUSHING, 40 * MB, done=True)
    )
    assert transfers.lines(80) == [f"{A.short()}: Already exists", f"{B.short()}: Pushed"]
    assert transfers.summary(1.0, finished=True) == "Pulled 2/2 40MB in 0.0s"
    nothing = fed(event(A, Phase.WAITING), event(A, Phase.PRESENT, 40 * MB, done=True))
    assert nothing.summary(1.0, finished=True) == "Pulled 1/1 in 0.0s"


def test_speed_and_what_is_left() -> None:
    transfers = fed(
        event(A, Phase.WAITING),
        event(B, Phase.WAITING),
        event(C, Phase.PRESENT, 40 * MB, done=True),
        event(A, Phase.PULLING, 0, at=10.0),
        event(A, Phase.PULLING, 5 * MB, at=11.0),
        event(A, Phase.PULLING, 10 * MB, at=12.0),
    )
    assert transfers.summary(12.0) == "Pulling 1/3 10MB/80MB 5MB/s ETA 14s"
    assert transfers.summary(14.0) == "Pulling 1/3 10MB/80MB 2.5MB/s ETA 28s"  # it stalls


def test_the_half_of_an_earlier_pull_is_not_speed() -> None:
    transfers = fed(
        event(A, Phase.PULLING, 0, at=0.0),
        event(A, Phase.PULLING, 20 * MB, at=0.01),
        event(A, Phase.PULLING, 21 * MB, at=1.0),
    )
    assert transfers.speed(1.0) == 1 * MB
    assert transfers.summary(1.0) == "Pulling 0/1 21MB/40MB 1MB/s ETA 19s"


def test_speed_is_of_the_last_seconds() -> None:
    transfers = fed(*(event(A, Phase.PULLING, n * MB, None, at=float(n)) for n in range(20)))
    for n in range(20, 40):
        transfers.feed(event(A, Phase.PULLING, 20 * MB + (n - 20) * 1000, None, at=float(n)))
    assert transfers.speed(39.0) < 2000


def test_unknown_sizes_have_no_bar_and_no_end() -> None:
    transfers = fed(
        event(A, Phase.PULLING, 0, None, at=0.0), event(A, Phase.PULLING, 3 * MB, None, at=1.0)
    )
    assert transfers.lines(80) == [f"{A.short()}: Downloading  3MB"]
    assert transfers.summary(1.0) == "Pulling 0/1 3MB 3MB/s"


@pytest.mark.parametrize("width", [1, 20, 37, 45, 60, 80, 300])
def test_no_row_is_wider_than_the_terminal(width: int) -> None:
    transfers = fed(event(A, Phase.PULLING, 123_456_789, 987_654_321), event(B, Phase.WAITING))
    rows = transfers.lines(width)
    assert max(map(len, rows)) <= width
    assert ("[" in rows[0]) == (width >= 60)


def test_when_there_are_too_many_what_moves_is_shown() -> None:
    digests = [Digest.of(bytes([n])) for n in range(30)]
    transfers = fed(*(event(digest, Phase.WAITING) for digest in digests))
    for digest in digests[:10]:
        transfers.feed(event(digest, Phase.PULLING, 40 * MB, done=True))
    for digest in digests[10:14]:
        transfers.feed(event(digest, Phase.PULLING, 1 * MB))
    rows = transfers.lines(80, limit=5)
    assert len(rows) == 5
    assert [row.partition(":")[0] for row in rows if "Downloading" in row] == [
        digest.short() for digest in digests[10:14]
    ]


@pytest.mark.parametrize(
    ("current", "drawn"), [(0, "    "), (1, "    "), (25, ">   "), (99, "==> "), (100, "===>")]
)
def test_bars(current: int, drawn: str) -> None:
    assert bar(current, 100, 4) == drawn


def test_the_live_view_of_a_pull_speaks_of_no_build() -> None:
    out = io.StringIO()
    view = LiveView(out, clock=lambda: 2.0, width=80, builds=False)
    view(event(A, Phase.PULLING, 0, at=0.0))
    view(event(A, Phase.PULLING, 4 * MB, at=1.0))
    view(event(A, Phase.PULLING, 40 * MB, at=2.0, done=True))
    view.close()
    assert out.getvalue() == (
        f"[+] Pulled 1/1 40MB in 2.0s (20MB/s)\n{A.short()}: Download complete\n"
    )


def test_the_live_view_of_nothing_is_empty() -> None:
    out = io.StringIO()
    LiveView(out, clock=lambda: 2.0, width=80, builds=False).close()
    assert out.getvalue() == ""


def test_a_build_shows_what_it_pulls_below_its_steps() -> None:
    out = io.StringIO()
    view = LiveView(out, clock=lambda: 1.0, width=80)
    view(event(A, Phase.PULLING, 0, at=0.0))
    view(event(A, Phase.PULLING, 4 * MB, at=0.9))
    view(Progress("export", "exporting layers", 5, 10, 0.0))
    rows = [row.rstrip() for row in view.frame()]
    view.close()
    assert rows[0].startswith("[+] Building")
    assert rows[1] == " => Pulling 0/1 4MB/40MB 4MB/s ETA 9s"
    assert rows[2].startswith(f" => => {A.short()}: Downloading [=>")
    assert rows[3].startswith(" => exporting layers")
    assert rows[3].endswith("50%")


def test_plain_lines_begin_end_and_tell_of_long_ones() -> None:
    out = io.StringIO()
    view = PlainView(out)
    for one in (
        event(A, Phase.WAITING),
        event(B, Phase.PRESENT, done=True),
        event(A, Phase.PULLING, 0, at=0.0),
        event(A, Phase.PULLING, 1 * MB, at=1.0),
        event(A, Phase.PULLING, 10 * MB, at=5.0),
        event(A, Phase.PULLING, 11 * MB, at=6.0),
        event(A, Phase.PULLING, 40 * MB, at=8.0, done=True),
    ):
        view(one)
    view.close()
    assert out.getvalue().splitlines() == [
        f"pulling layer {B.short()}: already exists",
        f"pulling layer {A.short()}",
        f"pulling layer {A.short()} 10MB/40MB 2MB/s",
        f"pulling layer {A.short()} done",
    ]


def test_json_has_the_blob_and_its_phase() -> None:
    out = io.StringIO()
    JsonView(out)(event(A, Phase.UNPACKING, 5, 10))
    document = json.loads(out.getvalue())
    assert document["subject"] == str(A)
    assert document["phase"] == "unpacking"
    assert (document["current"], document["total"], document["done"]) == (5, 10, False)
