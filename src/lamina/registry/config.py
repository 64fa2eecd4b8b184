# SPDX-License-Identifier: Apache-2.0
"""Stored credentials: Docker's `config.json`, `auth.json` of other tools, credential helpers.

Files are read in order and the longest path that matches wins (containers-auth.json(5)); a helper
is a program `docker-credential-NAME` that is run without a shell and given the server's name on its
standard input (docker-credential-helpers). A broken file is an error that names it.
"""

from __future__ import annotations

import base64
import json
import os
import re
import shutil
import subprocess

from lamina.errors import Kind, LaminaError
from lamina.registry.auth import Credentials
from lamina.start.record import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

HUB_KEY = "https://index.docker.io/v1/"  # under which Docker has always kept Docker Hub's login
HUB = "docker.io"
_HUB_HOSTS = frozenset({"docker.io", "index.docker.io", "registry-1.docker.io"})
_HELPER_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]*", re.ASCII)
_HELPER_TIMEOUT = 60  # seconds: some ask the user for a passphrase
_NOT_FOUND = "credentials not found in native keychain"  # docker-credential-helpers
_TOKEN_USER = "<token>"  # noqa: S105  # a helper's user name for an identity token


class CredentialFiles(Record):
    """`docker` is the file that `login` writes; `others` are read after it. `search_path` is PATH
    for helpers, `environment` theirs.
    """

    docker: str
    others: tuple[str, ...] = ()
    search_path: str = ""
    environment: tuple[tuple[str, str], ...] = ()


class CredentialStore:
    """The credentials of a user, found by registry and repository."""

    def __init__(self, files: CredentialFiles) -> None:
        self._files = files

    def find(self, host: str, repository: str = "") -> Credentials:
        """What is stored for the longest prefix of `host/repository`; empty if nothing is.

        Raises:
            LaminaError: INVALID for a broken file, SYSTEM for a helper that fails.
        """
        for path in (self._files.docker, *self._files.others):
            document = _read(path)
            if not document:
                continue
            for key in _candidates(host, repository):
                found = self._in_file(document, key, path)
                if found:
                    return found
        return Credentials()

    def _in_file(self, document: Mapping[str, object], key: str, path: str) -> Credentials:
        helper = _helper_of(document, key, path)
        if helper and "/" not in key:
            found = self._ask(helper, _server_of(key))
            if found:
                return found
        auths = document.get("auths") or {}
        if not isinstance(auths, dict):
            raise _broken(path, "auths is not an object")
        for name, entry in auths.items():
            if normalise_key(name) == key and isinstance(entry, dict):
                found = _decode(entry, path)
                if found:
                    return found
        return Credentials()

    def store(self, host: str, credentials: Credentials) -> str:
        """Keep them as `docker login` does and return where: a helper's name, or the file."""
        path = self._files.docker
        document = _read(path)
        helper = _helper_of(document, host, path)
        server = _server_of(host)
        if helper:
            user, secret = credentials.username, credentials.password
            if credentials.identity_token:
                user, secret = _TOKEN_USER, credentials.identity_token
            body = json.dumps({"ServerURL": server, "Username": user, "Secret": secret})
            self._run(helper, "store", body)
            return f"docker-credential-{helper}"
        pair = f"{credentials.username}:{credentials.password}".encode()
        entry: dict[str, object] = {"auth": base64.b64encode(pair).decode()}
        if credentials.identity_token:
            pair = f"{credentials.username}:".encode()
            entry = {
                "auth": base64.b64encode(pair).decode(),
                "identitytoken": credentials.identity_token,
            }
        auths = _auths(document, path)
        auths[server] = entry
        _write(path, {**document, "auths": auths})
        return path

    def erase(self, host: str) -> bool:
        """Forget them; False if there were none in the file and no helper."""
        path = self._files.docker
        document = _read(path)
        helper = _helper_of(document, host, path)
        found = False
        if helper:
            found = bool(self._ask(helper, _server_of(host)))
            if found:
                self._run(helper, "erase", _server_of(host))
        auths = _auths(document, path)
        kept = {name: entry for name, entry in auths.items() if normalise_key(name) != host}
        if len(kept) != len(auths):
            _write(path, {**document, "auths": kept})
            found = True
        return found

    def uses_helper(self, host: str) -> bool:
        """Whether `store` would give them to a credential helper."""
        return bool(_helper_of(_read(self._files.docker), host, self._files.docker))

    def _ask(self, helper: str, server: str) -> Credentials:
        output = self._run(helper, "get", server)
        if output is None:
            return Credentials()
        try:
            document = json.loads(output)
            user, secret = document["Username"], document["Secret"]
        except (ValueError, KeyError, TypeError) as error:
            raise LaminaError(
                f"docker-credential-{helper} did not answer with credentials", kind=Kind.INVALID
            ) from error
        if user == _TOKEN_USER:
            return Credentials(identity_token=str(secret))
        return Credentials(str(user), str(secret))

    def _run(self, helper: str, verb: str, text: str) -> str | None:
        """What the helper printed; None if it has nothing for that server."""
        program = shutil.which(f"docker-credential-{helper}", path=self._files.search_path or None)
        if program is None:
            raise LaminaError(
                f"the credential helper docker-credential-{helper} is not installed",
                kind=Kind.NOT_FOUND,
                hint=f"{self._files.docker} names it",
            )
        try:
            done = subprocess.run(
                [program, verb],
                input=text.encode(),
                capture_output=True,
                timeout=_HELPER_TIMEOUT,
                check=False,
                env=dict(self._files.environment),
            )
        except (OSError, subprocess.TimeoutExpired) as error:
            raise LaminaError(
                f"docker-credential-{helper} failed: {error}", kind=Kind.SYSTEM
            ) from error
        output = done.stdout.decode(errors="replace").strip()
        if done.returncode == 0:
            return output
        if _NOT_FOUND in output:
            return None
        raise LaminaError(
            f"docker-credential-{helper} {verb} failed: {output[:300] or done.returncode}",
            kind=Kind.SYSTEM,
        )


def normalise_key(name: str) -> str:
    """A key of `auths` as `host[/path]`: scheme and API version dropped, Docker Hub's names one."""
    text = name.partition("://")[2] or name
    text = text.rstrip("/")
    host, slash, path = text.partition("/")
    if path in {"v1", "v2"}:
        slash = path = ""
    if host in _HUB_HOSTS:
        host = HUB
    return f"{host}{slash}{path}"


def _candidates(host: str, repository: str) -> Iterator[str]:
    """`host/a/b`, `host/a`, `host`."""
    parts = repository.split("/") if repository else []
    for count in range(len(parts), -1, -1):
        yield "/".join([host, *parts[:count]])


def _server_of(host: str) -> str:
    return HUB_KEY if host == HUB else host


def _helper_of(document: Mapping[str, object], key: str, path: str) -> str:
    helpers = document.get("credHelpers") or {}
    name = document.get("credsStore") or ""
    if isinstance(helpers, dict):
        for server, helper in helpers.items():
            if normalise_key(server) == key:
                name = helper
    if not name:
        return ""
    if not isinstance(name, str) or not _HELPER_NAME.fullmatch(name):
        raise _broken(path, f"{name!r} is not the name of a credential helper")
    return name


def _decode(entry: Mapping[str, object], path: str) -> Credentials:
    token = entry.get("identitytoken")
    auth = entry.get("auth")
    user, password = entry.get("username"), entry.get("password")
    if isinstance(auth, str) and auth:
        try:
            text = base64.b64decode(auth, validate=True).decode()
        except ValueError as error:
            raise _broken(path, "an auth value is not base64") from error
        user, _, password = text.partition(":")
        password = password.strip("\0")
    return Credentials(
        user if isinstance(user, str) else "",
        password if isinstance(password, str) else "",
        token if isinstance(token, str) else "",
    )


def _auths(document: Mapping[str, object], path: str) -> dict[str, object]:
    auths = document.get("auths") or {}
    if not isinstance(auths, dict):
        raise _broken(path, "auths is not an object")
    return dict(auths)


def _read(path: str) -> dict[str, object]:
    if not path:
        return {}
    try:
        with open(path, "rb") as file:
            document = json.loads(file.read() or b"{}")
    except (FileNotFoundError, NotADirectoryError):
        return {}
    except (ValueError, RecursionError) as error:
        raise _broken(path, str(error)) from error
    except PermissionError as error:
        raise LaminaError(f"cannot read {path}: permission denied", kind=Kind.DENIED) from error
    if not isinstance(document, dict):
        raise _broken(path, "not a JSON object")
    return document


def _write(path: str, document: Mapping[str, object]) -> None:
    """Replace the file, mode 0600; a link is followed so that it stays one."""
    path = os.path.realpath(path)
    os.makedirs(os.path.dirname(path), mode=0o700, exist_ok=True)
    temporary = f"{path}.{os.getpid()}.new"
    fd = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    try:
        with os.fdopen(fd, "w", encoding="utf-8") as file:
            json.dump(document, file, indent="\t")
        os.rename(temporary, path)
    except BaseException:
        os.unlink(temporary)
        raise


def _broken(path: str, why: str) -> LaminaError:
    return LaminaError(f"{path}: {why}", kind=Kind.INVALID)


def credential_files(env: Mapping[str, str], *, uid: int) -> CredentialFiles:
    """Where this user's credentials are: REGISTRY_AUTH_FILE alone if set, else Docker's file, then
    those of podman and skopeo.
    """
    home = env.get("HOME", "")
    docker = env.get("DOCKER_CONFIG", "") or (f"{home}/.docker" if home else "")
    runtime = env.get("XDG_RUNTIME_DIR", "") or ("/run" if uid == 0 else "")
    base = env.get("XDG_CONFIG_HOME", "") or (f"{home}/.config" if home else "")
    others = [f"{runtime}/containers/{uid}/auth.json"] if uid == 0 else []
    others += [f"{runtime}/containers/auth.json"] if runtime else []
    others += [f"{base}/containers/auth.json"] if base else []
    main = f"{docker}/config.json" if docker else ""
    explicit = env.get("REGISTRY_AUTH_FILE", "")
    if explicit:
        main, others = explicit, []
    return CredentialFiles(
        main, tuple(others), search_path=env.get("PATH", ""), environment=_items(env)
    )


def _items(env: Mapping[str, str]) -> tuple[tuple[str, str], ...]:
    return tuple(env.items())
