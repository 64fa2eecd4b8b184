# SPDX-License-Identifier: Apache-2.0
"""Git repositories, by the git binary, which is trusted with nothing.

- Nothing that a Dockerfile says can be an option: refs were checked (`spec.gitref`), remotes stand
  after `--`.
- No configuration of the system or the user, no hooks, no templates, no prompts, no bundles, no
  filters, and only the protocols that are allowed, in submodules too.
- Credentials of a URL travel in the environment, in no argument list. They go to the URL's own
  scheme, host and port only: where the repository's address leads is found out before (git takes a
  header that is configured for the first address to where that redirects), and submodules of the
  same host get them from a credential helper that knows this host only.
- A subdirectory is looked up without following any link.
"""

from __future__ import annotations

import base64
import os
import shutil
import signal
import stat
import subprocess
import tempfile
from contextlib import suppress
from typing import IO, cast
from urllib.parse import unquote

from lamina.errors import Kind, LaminaError
from lamina.remote.http import origin
from lamina.spec.gitref import check_ref, is_commit, split_credentials
from lamina.start.record import Record
from lamina.system.paths import failure

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

    from lamina.plan.ops import GitSource
    from lamina.remote.http import HttpClient
    from lamina.remote.settings import RemoteSettings
    from lamina.tasks import CancelToken

_POLL_SECONDS = 0.1
_MAX_OUTPUT = 16 * 1024 * 1024  # bytes of `ls-remote`; the largest repositories have a few MB
_KEPT = 2000  # characters of git's complaints that are shown
_LOW_SPEED_SECONDS = 60
_REFS = "/info/refs?service=git-upload-pack"  # what git asks for first (gitprotocol-http)
_HELPER = (
    '!f() { test "$1" != get || '
    'printf \'username=%s\\npassword=%s\\n\' "$LAMINA_GIT_USER" "$LAMINA_GIT_PASSWORD"; }; f'
)
_SSH = "ssh -F none -o BatchMode=yes -o ConnectTimeout=20"
_SAFE = (
    ("core.hooksPath", "/dev/null"),
    ("core.fsmonitor", "false"),
    ("core.askPass", ""),
    ("credential.helper", ""),
    ("init.defaultBranch", "main"),
    ("gc.auto", "0"),
    ("maintenance.auto", "false"),
    ("advice.detachedHead", "false"),
    ("transfer.bundleURI", "false"),
    ("submodule.recurse", "false"),
    ("http.lowSpeedLimit", "1"),
    ("http.lowSpeedTime", str(_LOW_SPEED_SECONDS)),
)


class GitFailed(LaminaError):
    kind = Kind.UNAVAILABLE


class RemoteRef(Record):
    """A commit and the full name of the ref that names it."""

    commit: str
    ref: str


class _Address(Record):
    """A remote without credentials, `url` to which it leads, and the environment that git needs."""

    remote: str
    url: str
    env: dict[str, str]


class Git:
    """The git binary with these settings; `client` finds out where addresses lead."""

    def __init__(self, settings: RemoteSettings, client: HttpClient) -> None:
        self._settings = settings
        self._client = client

    def resolve(self, remote: str, ref: str, *, cancel: CancelToken) -> RemoteRef:
        """The commit that `ref` (empty: the default branch) of the remote is now.

        A name that is both a branch and a tag is the branch, as for `git checkout`.

        Raises:
            LaminaError: NOT_FOUND for a ref that is not there, UNAVAILABLE if the remote does not
                answer, SYSTEM without git.
        """
        if ref:
            check_ref(ref)
        address = self._address(remote, cancel)
        wanted = [ref, f"{ref}^{{}}"] if ref else ["HEAD"]
        arguments = ["ls-remote", "--symref", "--", address.url, *wanted]
        what = f"cannot list {remote}"
        output = self._run(arguments, address.env, what=what, cwd="/", cancel=cancel)
        lines = [line.split("\t", 1) for line in output.splitlines() if "\t" in line]
        found = {name: value for value, name in lines if is_commit(value)}
        if not ref:
            heads = [value for value, name in lines if name == "HEAD" and value.startswith("ref: ")]
            if "HEAD" not in found:
                text = f"could not find the default branch of {remote}"
                raise LaminaError(text, kind=Kind.NOT_FOUND)
            return RemoteRef(found["HEAD"], heads[0].removeprefix("ref: ") if heads else "HEAD")
        for full in _candidates(ref):
            commit = found.get(f"{full}^{{}}") or found.get(full)
            if commit:
                return RemoteRef(commit, full)
        raise LaminaError(f"repository {remote} does not contain ref {ref}", kind=Kind.NOT_FOUND)

    def checkout(self, op: GitSource, target: str, *, cancel: CancelToken) -> str:
        """Have the source's tree in the new directory `target`; the path of its subdirectory.

        Every file is as old as the commit. The caller removes `target`.

        Raises:
            LaminaError: as `resolve`; INTEGRITY if the commit is not what came, INVALID or
                NOT_FOUND for the subdirectory.
        """
        os.mkdir(target, 0o755)
        work = _Checkout(self, op, target, cancel)
        work.fetch()
        work.files()
        if op.submodules:
            work.submodules()
        when = work.committed()
        try:
            work.tidy()
            _set_times(target, when)
        except OSError as error:
            raise failure(error, f"cannot read the checkout of {op.remote}") from error
        return _subdirectory(target, op.subdir)

    def _address(self, remote: str, cancel: CancelToken) -> _Address:
        plain, userinfo = split_credentials(remote)
        if not userinfo:
            return _Address(plain, plain, self._environment(()))
        user, _, password = userinfo.partition(":")
        secrets = {"LAMINA_GIT_USER": unquote(user), "LAMINA_GIT_PASSWORD": unquote(password)}
        if not "".join(secrets.values()).isprintable():
            text = f"credentials with control characters in {remote}"
            raise LaminaError(text, kind=Kind.INVALID)
        scheme, _, rest = plain.partition("://")
        extra = [(f"credential.{scheme}://{rest.partition('/')[0]}.helper", _HELPER)]
        url = self._lead(remote, plain, cancel)
        if origin(url) == origin(plain):
            token = base64.b64encode(":".join(secrets.values()).encode()).decode()
            extra.append((f"http.{url}.extraHeader", f"Authorization: Basic {token}"))
            extra.append((f"http.{url}.followRedirects", "false"))
        return _Address(plain, url, self._environment(extra) | secrets)

    def _lead(self, remote: str, plain: str, cancel: CancelToken) -> str:
        """Where the remote leads; `plain` if it does not say, of which git will complain."""
        headers = {"User-Agent": "git/lamina"}  # servers answer git otherwise than browsers
        try:
            asked = f"{remote.rstrip('/')}{_REFS}"
            response, found = self._client.open(asked, headers, cancel=cancel)
        except LaminaError:
            return plain
        response.close()
        url = found.removesuffix(_REFS)
        is_url = url != found and url.isprintable() and " " not in url
        return url if is_url else plain

    def _environment(self, extra: Sequence[tuple[str, str]]) -> dict[str, str]:
        settings = self._settings
        config = [*_SAFE, *extra]
        if settings.ca_bundle:
            config.append(("http.sslCAInfo", settings.ca_bundle))
        env = {
            "PATH": settings.search_path or os.defpath,
            "HOME": "/dev/null",
            "LC_ALL": "C",
            "GIT_CONFIG_NOSYSTEM": "1",
            "GIT_CONFIG_SYSTEM": "/dev/null",
            "GIT_CONFIG_GLOBAL": "/dev/null",
            "GIT_ATTR_NOSYSTEM": "1",
            "GIT_TERMINAL_PROMPT": "0",
            "GIT_ALLOW_PROTOCOL": ":".join(settings.protocols),
            "GIT_PROTOCOL_FROM_USER": "0",
            "GIT_SSH_COMMAND": _SSH,
            "GIT_LFS_SKIP_SMUDGE": "1",
            "GIT_CONFIG_COUNT": str(len(config)),
            **dict(settings.proxies),
        }
        if settings.ssh_agent:
            env["SSH_AUTH_SOCK"] = settings.ssh_agent
        for number, (key, value) in enumerate(config):
            env[f"GIT_CONFIG_KEY_{number}"] = key
            env[f"GIT_CONFIG_VALUE_{number}"] = value
        return env

    def _run(
        self,
        arguments: Sequence[str],
        env: dict[str, str],
        *,
        what: str,
        cwd: str,
        cancel: CancelToken,
    ) -> str:
        """Git's output. Raises GitFailed with what it complains of."""
        with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
            try:
                process = subprocess.Popen(
                    ["git", *arguments],
                    cwd=cwd,
                    env=env,
                    stdin=subprocess.DEVNULL,
                    stdout=out,
                    stderr=err,
                    umask=0o022,
                    start_new_session=True,  # no terminal to ask on, and one group to end
                )
            except FileNotFoundError as error:
                raise LaminaError(
                    "git is not installed, and a git repository is needed",
                    kind=Kind.SYSTEM,
                    hint="install the package git",
                ) from error
            status = _wait(process, cancel)
            if status:
                raise _failure(what, _read(err, _KEPT))
            return _read(out, _MAX_OUTPUT)


def _candidates(ref: str) -> tuple[str, ...]:
    bare = ref.removeprefix("refs/")
    return (
        f"refs/{bare}",
        f"refs/heads/{ref.removeprefix('refs/heads/')}",
        f"refs/tags/{ref.removeprefix('refs/tags/')}",
    )


class _Checkout:
    """One repository being made in `target`."""

    def __init__(self, git: Git, op: GitSource, target: str, cancel: CancelToken) -> None:
        self._git = git
        self._op = op
        self._target = target
        self._cancel = cancel
        self._address = git._address(op.remote, cancel)

    def _do(self, *arguments: str, what: str = "") -> str:
        label = what or f"cannot check {self._op.remote} out"
        places = ["--git-dir", f"{self._target}/.git", "--work-tree", self._target]
        return self._git._run(
            [*places, *arguments],
            self._address.env,
            what=label,
            cwd=self._target,
            cancel=self._cancel,
        )

    def fetch(self) -> None:
        """Get the commit: alone, or through its ref, or with everything, as the server allows."""
        commit, ref = self._op.commit, self._op.ref
        if not is_commit(commit):
            raise LaminaError(f"invalid commit {commit!r}", kind=Kind.INVALID)
        kind = "sha256" if len(commit) == 64 else "sha1"
        self._do("init", "--quiet", "--template=", f"--object-format={kind}")
        self._do("remote", "add", "--", "origin", self._address.remote)
        what = f"cannot fetch {self._op.remote}"
        url = self._address.url
        shallow = ("fetch", "--quiet", "--no-tags", "--depth=1", "--", url)
        wanted = [(*shallow, f"+{commit}:{_local(ref)}")]
        if ref.startswith("refs/"):
            wanted.append((*shallow, f"+{ref}:{_local(ref)}"))
        everything = ("+refs/heads/*:refs/remotes/origin/*", "+refs/tags/*:refs/tags/*")
        wanted.append(("fetch", "--quiet", "--no-tags", "--", url, *everything))
        for number, arguments in enumerate(wanted, start=1):
            try:
                self._do(*arguments, what=what)
            except GitFailed:
                if number == len(wanted):
                    raise
                continue
            if self._has(commit):
                return
        raise LaminaError(
            f"commit {commit} is not in {self._op.remote}"
            + (f": {ref} moved while the build was running" if ref else ""),
            kind=Kind.CONFLICT if ref else Kind.NOT_FOUND,
        )

    def _has(self, commit: str) -> bool:
        try:
            self._do("cat-file", "-e", f"{commit}^{{commit}}")
        except GitFailed:
            return False
        return True

    def files(self) -> None:
        """Write the commit's files."""
        self._do("checkout", "--quiet", "--force", "--detach", self._op.commit)
        found = self._do("rev-parse", "--verify", "HEAD^{commit}").strip()
        if found != self._op.commit:
            text = f"{self._op.remote} gave commit {found} for {self._op.commit}"
            raise LaminaError(text, kind=Kind.INTEGRITY)

    def submodules(self) -> None:
        """Fetch submodules too; servers that cannot give one commit give all."""
        if not os.path.lexists(os.path.join(self._target, ".gitmodules")):
            return
        what = f"cannot update the submodules of {self._op.remote}"
        update = ("submodule", "--quiet", "update", "--init", "--recursive", "--checkout")
        try:
            self._do(*update, "--depth=1", what=what)
        except GitFailed:
            self._do(*update, what=what)

    def committed(self) -> int:
        """When the commit was made, in POSIX seconds."""
        text = self._do("show", "--no-patch", "--no-show-signature", "--format=%ct", "HEAD").strip()
        return int(text) if text.isdigit() else 0

    def tidy(self) -> None:
        """Remove what git keeps for itself; with `keep_git_dir` only what differs each time."""
        if not self._op.keep_git_dir or self._op.subdir:
            _remove_git_dirs(self._target)
            return
        self._do("remote", "set-url", "--", "origin", self._address.remote)
        self._do("reflog", "expire", "--expire=now", "--all")
        for name in ("FETCH_HEAD", "ORIG_HEAD"):
            path = os.path.join(self._target, ".git", name)
            if os.path.lexists(path):
                os.unlink(path)


def _local(ref: str) -> str:
    """The name that a fetched ref gets here."""
    if ref.startswith("refs/heads/"):
        return "refs/remotes/origin/" + ref.removeprefix("refs/heads/")
    return ref if ref.startswith("refs/tags/") else "refs/remotes/origin/lamina"


def _wait(process: subprocess.Popen[bytes], cancel: CancelToken) -> int:
    try:
        while True:
            try:
                return process.wait(_POLL_SECONDS)
            except subprocess.TimeoutExpired:
                cancel.check()
    except BaseException:
        _kill_group(process)
        raise


def _kill_group(process: subprocess.Popen[bytes]) -> None:
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def _read(file: object, limit: int) -> str:
    stream = cast("IO[bytes]", file)  # TemporaryFile's type has no public name
    stream.seek(0)
    raw = stream.read(limit + 1)
    return raw[:limit].decode("utf-8", "replace")


def _failure(what: str, complaint: str) -> GitFailed:
    lines = [line.strip() for line in complaint.splitlines() if line.strip()]
    last = [line for line in lines if line.startswith(("fatal:", "error:", "ERROR:"))] or lines
    text = "; ".join(dict.fromkeys(last[-2:])) if last else "git failed"
    hint = ""
    if "Host key verification failed" in complaint:
        hint = "add the host to ~/.ssh/known_hosts (ssh-keyscan HOST)"
    elif "not allowed" in complaint and "transport" in complaint:
        hint = "lamina lets git speak https, http, ssh and git only"
    elif "certificate" in complaint:
        hint = "set a CA bundle: --ca-bundle, LAMINA_CA_BUNDLE or SSL_CERT_FILE"
    printable = "".join(char if char.isprintable() else " " for char in text)
    return GitFailed(f"{what}: {printable}", hint=hint)


def _directories(root: str) -> list[str]:
    """Every directory below `root` and itself, parents first, without `.git` and what is in it."""
    found = [root]
    for directory in found:  # it grows: os.walk of Python 3.11 calls itself for each level
        with os.scandir(directory) as entries:
            found += [
                e.path for e in entries if e.name != ".git" and e.is_dir(follow_symlinks=False)
            ]
    return found


def _remove_git_dirs(root: str) -> None:
    """Remove every `.git`: no commit can hold such a path, so each is git's own."""
    for directory in _directories(root):
        path = os.path.join(directory, ".git")
        if os.path.isdir(path) and not os.path.islink(path):
            shutil.rmtree(path)
        elif os.path.lexists(path):
            os.unlink(path)


def _set_times(root: str, seconds: int) -> None:
    for directory in reversed(_directories(root)):
        for name in os.listdir(directory):
            path = os.path.join(directory, name)
            os.utime(path, (seconds, seconds), follow_symlinks=False)
    os.utime(root, (seconds, seconds))


def _subdirectory(root: str, subdir: str) -> str:
    path = root
    for part in subdir.split("/") if subdir else ():
        path = os.path.join(path, part)
        try:
            found = os.lstat(path)
        except FileNotFoundError as error:
            text = f"the git repository has no directory {subdir!r}"
            raise LaminaError(text, kind=Kind.NOT_FOUND) from error
        if not stat.S_ISDIR(found.st_mode):
            text = f"{subdir!r} of the git repository is not a directory"
            raise LaminaError(text, kind=Kind.INVALID)
    return path
