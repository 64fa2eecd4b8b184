# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import base64
import json
import os
from pathlib import Path

import pytest

from lamina.errors import LaminaError
from lamina.registry.auth import Credentials
from lamina.registry.config import CredentialFiles, CredentialStore, credential_files


def auth(pair: str) -> dict[str, str]:
    return {"auth": base64.b64encode(pair.encode()).decode()}


def store(tmp_path: Path, document: object, *others: object) -> CredentialStore:
    paths = []
    for number, each in enumerate((document, *others)):
        path = tmp_path / f"{number}.json"
        path.write_text(json.dumps(each))
        paths.append(str(path))
    return CredentialStore(
        CredentialFiles(
            paths[0], tuple(paths[1:]), str(tmp_path / "bin"), tuple(os.environ.items())
        )
    )


def helper(tmp_path: Path, name: str, script: str) -> None:
    (tmp_path / "bin").mkdir(exist_ok=True)
    path = tmp_path / "bin" / f"docker-credential-{name}"
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)


def test_the_longest_path_wins(tmp_path: Path) -> None:
    found = store(
        tmp_path,
        {
            "auths": {
                "r.example.com": auth("host:1"),
                "r.example.com/team": auth("team:2"),
                "r.example.com/team/app": auth("app:3"),
            }
        },
    )
    assert found.find("r.example.com", "team/app").username == "app"
    assert found.find("r.example.com", "team/other").username == "team"
    assert found.find("r.example.com", "teams/x").username == "host"
    assert not found.find("other.example.com", "team/app")


@pytest.mark.parametrize(
    "key", ["https://index.docker.io/v1/", "docker.io", "index.docker.io", "https://docker.io"]
)
def test_docker_hub_has_many_names(tmp_path: Path, key: str) -> None:
    assert store(tmp_path, {"auths": {key: auth("me:pw:with:colons")}}).find(
        "docker.io", "library/ubuntu"
    ) == Credentials("me", "pw:with:colons")


def test_files_are_read_in_order(tmp_path: Path) -> None:
    found = store(tmp_path, {"auths": {}}, {"auths": {"r.io": auth("second:x")}})
    assert found.find("r.io").username == "second"


def test_an_identity_token(tmp_path: Path) -> None:
    entry = {**auth("me:"), "identitytoken": "tok"}
    assert store(tmp_path, {"auths": {"r.io": entry}}).find("r.io").identity_token == "tok"


def test_a_helper_is_run_without_a_shell(tmp_path: Path) -> None:
    helper(
        tmp_path, "mine", 'read server; echo "{\\"Username\\":\\"$1\\",\\"Secret\\":\\"$server\\"}"'
    )
    found = store(tmp_path, {"credHelpers": {"r.io": "mine"}})
    assert found.find("r.io") == Credentials("get", "r.io")
    for bad in ("../mine", "a;b", "-x", "a/b"):
        with pytest.raises(LaminaError, match="not the name of a credential helper"):
            store(tmp_path, {"credsStore": bad}).find("r.io")


def test_a_helper_without_credentials_falls_back_to_the_file(tmp_path: Path) -> None:
    helper(tmp_path, "empty", "echo credentials not found in native keychain; exit 1")
    found = store(tmp_path, {"credsStore": "empty", "auths": {"r.io": auth("file:x")}})
    assert found.find("r.io").username == "file"


def test_a_missing_or_failing_helper_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(LaminaError, match="docker-credential-none is not installed"):
        store(tmp_path, {"credsStore": "none"}).find("r.io")
    helper(tmp_path, "bad", "echo locked; exit 1")
    with pytest.raises(LaminaError, match="locked"):
        store(tmp_path, {"credsStore": "bad"}).find("r.io")


def test_login_and_logout_change_one_entry(tmp_path: Path) -> None:
    found = store(tmp_path, {"auths": {"a.io": auth("a:b")}, "psFormat": "x"})
    path = found.store("r.io", Credentials("me", "pw"))
    assert os.stat(path).st_mode & 0o777 == 0o600
    document = json.loads(Path(path).read_text())
    assert document["psFormat"] == "x"
    assert found.find("r.io") == Credentials("me", "pw")
    assert found.erase("r.io")
    assert not found.erase("r.io")
    assert found.find("a.io").username == "a"


def test_login_to_a_store_leaves_no_password_in_the_file(tmp_path: Path) -> None:
    helper(tmp_path, "keep", f'cat > {tmp_path}/kept; echo "$1" > {tmp_path}/verb')
    found = store(tmp_path, {"credsStore": "keep"})
    assert found.store("docker.io", Credentials("me", "pw")) == "docker-credential-keep"
    kept = json.loads((tmp_path / "kept").read_text())
    assert kept == {
        "ServerURL": "https://index.docker.io/v1/",
        "Username": "me",
        "Secret": "pw",
    }
    assert "auths" not in json.loads((tmp_path / "0.json").read_text())


def test_broken_files_are_named(tmp_path: Path) -> None:
    (tmp_path / "bad").write_text("{")
    with pytest.raises(LaminaError, match="bad"):
        CredentialStore(CredentialFiles(str(tmp_path / "bad"))).find("r.io")
    with pytest.raises(LaminaError, match="base64"):
        store(tmp_path, {"auths": {"r.io": {"auth": "***"}}}).find("r.io")


def test_secrets_do_not_show() -> None:
    assert "pw" not in repr(Credentials("me", "pw", "token"))


def test_where_credentials_are() -> None:
    files = credential_files({"HOME": "/h", "XDG_RUNTIME_DIR": "/r"}, uid=1000)
    assert files.docker == "/h/.docker/config.json"
    assert files.others == ("/r/containers/auth.json", "/h/.config/containers/auth.json")
    assert credential_files({"DOCKER_CONFIG": "/d"}, uid=1).docker == "/d/config.json"
    explicit = credential_files({"REGISTRY_AUTH_FILE": "/a", "HOME": "/h"}, uid=1)
    assert (explicit.docker, explicit.others) == ("/a", ())
