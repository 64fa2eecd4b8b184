# SPDX-License-Identifier: Apache-2.0
"""ADD of URLs: content, names, times, caching, checksums, and what a server can do wrong."""

from __future__ import annotations

import hashlib
import io
import tarfile

import pytest

from lamina.testing.bench import Bench, is_cached
from lamina.testing.webserver import Reply


def archive(**files: str) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as tar:
        for name, text in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(text)
            tar.addfile(info, io.BytesIO(text.encode()))
    return buffer.getvalue()


def test_url_becomes_a_file_of_root_with_the_servers_time(bench: Bench) -> None:
    url = bench.web.put("/a/pkg%20x.txt", b"hello\n", mtime=1_600_000_000)
    tree = bench.tree(f"FROM scratch\nADD {url}?v=1 /dir/\nADD {url} /named\n")
    assert tree["dir/pkg x.txt"].content == b"hello\n"
    assert (tree["named"].mode, tree["named"].owner, tree["named"].mtime) == (
        0o600,
        (0, 0),
        1_600_000_000,
    )


def test_url_without_a_path_or_time(bench: Bench) -> None:
    url = bench.web.put("/", b"index")
    tree = bench.tree(f"FROM scratch\nADD {url} /dir/\n")
    assert (tree["dir/__unnamed__"].content, tree["dir/__unnamed__"].mtime) == (b"index", 0)


def test_owner_and_mode_of_a_download(bench: Bench) -> None:
    url = bench.web.put("/tool", b"x")
    tree = bench.tree(f"FROM scratch\nADD --chmod=u=rwX,go=rX --chown=7:8 {url} /bin/\n")
    assert (tree["bin/tool"].mode, tree["bin/tool"].owner) == (0o644, (7, 8))


@pytest.mark.parametrize("validator", ["etag", "mtime"])
def test_unchanged_url_is_asked_for_and_not_sent_again(bench: Bench, validator: str) -> None:
    url = bench.web.put(
        "/f", b"one", etag=validator == "etag", mtime=1e9 if validator == "mtime" else None
    )
    dockerfile = f"FROM scratch\nADD {url} /f\n"
    bench.build(dockerfile, "-t", "one")
    before = bench.lamina.id_of("one")
    log = bench.build(dockerfile, "-t", "one")
    assert is_cached(log)
    asked = [headers for _, _, headers in bench.web.requests]
    assert len(asked) == 2
    assert asked[1].get("if-none-match" if validator == "etag" else "if-modified-since")
    assert bench.lamina.id_of("one") == before


def test_changed_url_is_seen(bench: Bench) -> None:
    url = bench.web.put("/f", b"one", etag=True)
    assert bench.tree(f"FROM scratch\nADD {url} /f\n")["f"].content == b"one"
    bench.web.put("/f", b"two", etag=True)
    assert bench.tree(f"FROM scratch\nADD {url} /f\n")["f"].content == b"two"


def test_same_content_behind_another_url_is_cached(bench: Bench) -> None:
    bench.web.put("/1/f", b"same")
    bench.web.put("/2/f", b"same")
    bench.build(f"FROM scratch\nADD {bench.web.url}/1/f /f\n")
    assert is_cached(bench.build(f"FROM scratch\nADD {bench.web.url}/2/f /f\n"))


def test_checksum_that_holds_needs_no_network_the_second_time(bench: Bench) -> None:
    url = bench.web.put("/f", b"data")
    digest = "sha256:" + hashlib.sha256(b"data").hexdigest()
    dockerfile = f"FROM scratch\nADD --checksum={digest} {url} /f\n"
    bench.build(dockerfile)
    assert len(bench.web.requests) == 1
    assert is_cached(bench.build(dockerfile))
    assert len(bench.web.requests) == 1


def test_checksum_that_does_not_hold(bench: Bench) -> None:
    url = bench.web.put("/f", b"data")
    wrong = "sha256:" + "0" * 64
    status, text = bench.fails(f"FROM scratch\nADD --checksum={wrong} {url} /f\n")
    assert status == 6
    assert "digest mismatch" in text
    assert "Dockerfile:2" in text


@pytest.mark.parametrize(
    ("code", "status"), [(404, 3), (403, 5), (401, 5), (418, 7), (500, 7), (304, 7)]
)
def test_refusal_is_an_error_at_the_line(bench: Bench, code: int, status: int) -> None:
    bench.web.files["/f"] = Reply(code, b"no")
    found, text = bench.fails(f"FROM scratch\nADD {bench.web.url}/f /f\n")
    assert found == status
    assert f"invalid response status {code}" in text
    assert "Dockerfile:2" in text


def test_no_answer_is_an_error_even_if_the_content_is_here(bench: Bench) -> None:
    url = bench.web.put("/f", b"one", etag=True)
    dockerfile = f"FROM scratch\nADD {url} /f\n"
    bench.build(dockerfile)
    bench.web.files["/f"] = Reply(503)
    assert bench.fails(dockerfile)[0] == 7
    status, text = bench.fails("FROM scratch\nADD http://127.0.0.1:1/f /f\n")
    assert status == 7
    assert "refused" in text


def test_redirects_are_followed_and_loops_are_not(bench: Bench) -> None:
    bench.web.put("/end", b"there")
    bench.web.files["/start"] = Reply(302, headers=(("Location", "/end"),))
    bench.web.files["/loop"] = Reply(302, headers=(("Location", "/loop"),))
    bench.web.files["/file"] = Reply(302, headers=(("Location", "file:///etc/passwd"),))
    tree = bench.tree(f"FROM scratch\nADD {bench.web.url}/start /d/\n")
    assert tree["d/start"].content == b"there"
    assert "redirects more than" in bench.fails(f"FROM scratch\nADD {bench.web.url}/loop /x\n")[1]
    assert "neither http" in bench.fails(f"FROM scratch\nADD {bench.web.url}/file /x\n")[1]


def test_credentials_go_to_their_host_only_and_are_not_shown(bench: Bench) -> None:
    bench.web.put("/end", b"there")
    other = f"http://localhost:{bench.web.port}/end"
    bench.web.files["/start"] = Reply(302, headers=(("Location", other),))
    url = bench.web.url.replace("http://", "http://me:geheim@") + "/start"
    log = bench.build("FROM scratch\nARG URL\nADD ${URL} /x\n", "--build-arg", f"URL={url}")
    first, second = (headers for _, _, headers in bench.web.requests)
    assert first["authorization"].startswith("Basic ")
    assert "authorization" not in second
    bench.web.files["/start"] = Reply(500)
    _, text = bench.fails("FROM scratch\nARG URL\nADD ${URL} /x\n", "--build-arg", f"URL={url}")
    assert "geheim" not in text.partition("ERROR")[2]
    assert "load http://me:xxxxx@" in log


def test_short_content_is_an_error(bench: Bench) -> None:
    bench.web.files["/f"] = Reply(200, b"abc", (("Content-Length", "10"), ("Connection", "close")))
    status, text = bench.fails(f"FROM scratch\nADD {bench.web.url}/f /f\n")
    assert status == 7
    assert "cannot download" in text


def test_remote_archives_are_unpacked_only_if_asked(bench: Bench) -> None:
    url = bench.web.put("/a.tgz", archive(inner="deep"))
    assert "a.tgz" in bench.tree(f"FROM scratch\nADD {url} /\n")
    tree = bench.tree(f"FROM scratch\nADD --unpack=true {url} /d/\n")
    assert tree["d/inner"].content == b"deep"
    assert "d/a.tgz" not in tree


def test_local_archives_are_not_unpacked_if_told_so(bench: Bench) -> None:
    bench.write("a.tgz", archive(inner="deep"))
    assert "d/inner" in bench.tree("FROM scratch\nADD a.tgz /d/\n")
    assert "d/a.tgz" in bench.tree("FROM scratch\nADD --unpack=false a.tgz /d/\n")


def test_proxy_is_used_unless_no_proxy_names_the_host(bench: Bench) -> None:
    bench.web.put("http://elsewhere.invalid/f", b"by proxy")
    bench.web.put("/f", b"direct")
    bench.lamina.env |= {"http_proxy": bench.web.url, "no_proxy": "127.0.0.0/8"}
    tree = bench.tree("FROM scratch\nADD http://elsewhere.invalid/f /f\n")
    assert tree["f"].content == b"by proxy"
    tree = bench.tree(f"FROM scratch\nADD {bench.web.url}/f /f\n")
    assert tree["f"].content == b"direct"


def test_untrusted_certificate_is_an_error_that_says_what_to_do(bench: Bench) -> None:
    bench.lamina.env["SSL_CERT_FILE"] = str(bench.cwd / "none.pem")
    status, text = bench.fails("FROM scratch\nADD https://127.0.0.1:1/f /f\n")
    assert status in {3, 7}
    assert "Dockerfile:2" in text


def test_unneeded_stage_downloads_nothing(bench: Bench) -> None:
    bench.write("f", "x")
    bench.build(f"FROM scratch AS a\nADD {bench.web.url}/none /x\nFROM scratch\nCOPY f /f\n")
    assert not bench.web.requests


def test_cached_build_without_urls_imports_no_network_code(bench: Bench) -> None:
    bench.write("f", "x")
    bench.build("FROM scratch\nCOPY f /f\n")
    done = bench.lamina("build", ".", env={"PYTHONPROFILEIMPORTTIME": "1"})
    names = [line.rpartition("|")[2].strip() for line in done.stderr.splitlines() if "|" in line]
    assert names
    heavy = [n for n in names if n.partition(".")[0] in {"urllib3", "ssl", "http", "email"}]
    assert not heavy
    assert not [n for n in names if n.startswith(("lamina.remote", "lamina.spec.gitref"))]


def test_check_fetches_nothing(bench: Bench) -> None:
    bench.write("Dockerfile", f"FROM scratch\nADD {bench.web.url}/f /f\nADD git@localhost:x /g\n")
    bench.lamina("build", "--check", ".")
    assert not bench.web.requests
