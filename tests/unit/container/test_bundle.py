# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import json
from pathlib import Path

import pytest

from lamina.container.bundle import CA_DIRECTORY, write_bundle, write_ca_files, write_etc_files
from lamina.container.ports import ProcessSpec
from lamina.errors import Kind, LaminaError

PROCESS = ProcessSpec(argv=("true",), env=(), hostname="box")


def host_etc(tmp_path: Path) -> str:
    etc = tmp_path / "etc"
    etc.mkdir()
    (etc / "resolv.conf").write_text("nameserver 192.0.2.1\n")
    return str(etc)


def test_three_files_are_shown_in_a_container(tmp_path: Path) -> None:
    mounts = write_etc_files(str(tmp_path), PROCESS, host_etc=host_etc(tmp_path))
    shown = {mount.destination: Path(mount.source).read_text() for mount in mounts}
    assert shown["/etc/hostname"] == "box\n"
    assert shown["/etc/resolv.conf"] == "nameserver 192.0.2.1\n"
    assert "127.0.1.1\tbox\n" in shown["/etc/hosts"]
    assert {Path(mount.source).stat().st_mode & 0o777 for mount in mounts} == {0o644}


def test_step_keeps_the_images_hostname_file(tmp_path: Path) -> None:
    etc = host_etc(tmp_path)
    mounts = write_etc_files(str(tmp_path), PROCESS, host_etc=etc, for_step=True)
    assert [mount.destination for mount in mounts] == ["/etc/hosts", "/etc/resolv.conf"]


def test_ca_files_are_readable_by_everyone_and_mounted_read_only(tmp_path: Path) -> None:
    bundle = tmp_path / "ca.pem"
    bundle.write_bytes(b"pem \xff\n")
    bundle.chmod(0o600)
    mount = write_ca_files(str(tmp_path), str(bundle))
    assert mount.destination == CA_DIRECTORY
    assert "ro" in mount.options
    assert Path(mount.source, "ca-bundle.crt").read_bytes() == b"pem \xff\n"
    assert Path(mount.source, "ca-bundle.crt").stat().st_mode & 0o777 == 0o644
    assert CA_DIRECTORY in Path(mount.source, "apt.conf").read_text()


def test_config_is_utf_8(tmp_path: Path) -> None:
    write_bundle(str(tmp_path), {"process": {"args": ["café"]}})
    assert json.loads((tmp_path / "config.json").read_bytes())["process"]["args"] == ["café"]


def test_bytes_that_are_not_utf_8_are_refused(tmp_path: Path) -> None:
    with pytest.raises(LaminaError, match="not valid UTF-8 after") as caught:
        write_bundle(str(tmp_path), {"process": {"args": ["caf\udce9"]}})
    assert caught.value.kind is Kind.INVALID
