# SPDX-License-Identifier: Apache-2.0
"""`USER` and `--user`: names and numbers resolved in a rootfs' /etc/passwd and /etc/group.

The rules are Docker's (moby/sys/user GetExecUser): the first passwd line whose name or number
matches wins; a number needs no line; without an explicit group the user's supplementary groups
apply. The files are the image's and hostile: opened beneath the root, regular, at most 1 MiB.
"""

from __future__ import annotations

from lamina.errors import Kind, LaminaError
from lamina.start.record import Record, replace

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

MAX_ACCOUNTS = 1 << 20  # bytes of /etc/passwd and of /etc/group (CVE-2024-9676: endless ones)
MAX_ID = (1 << 31) - 1  # moby's limit for uid and gid


class InvalidUser(LaminaError):
    kind = Kind.INVALID


class ResolvedUser(Record):
    """Who a process is. `groups` are the supplementary gids, the primary one first."""

    uid: int = 0
    gid: int = 0
    groups: tuple[int, ...] = (0,)
    home: str = "/"
    name: str = ""


class _Account(Record):
    name: str
    uid: int
    gid: int
    home: str


def resolve_user(
    user: str, *, passwd: bytes, group: bytes, extra_groups: tuple[str, ...] = ()
) -> ResolvedUser:
    """`user` (`""`, `name`, `uid`, `name:group`, `uid:gid`...) as numbers; empty is uid 0.

    Raises:
        InvalidUser: no such user or group, or a number out of range.
    """
    user_text, colon, group_text = user.partition(":")
    account, uid = _find_account(user_text or "0", passwd)
    gid = account.gid if account else 0
    supplementary: list[int] = []
    if colon and group_text:
        gid = _find_group(group_text, group)
    elif account is not None:
        supplementary = [number for _, number, members in _groups(group) if account.name in members]
    supplementary += [_find_group(text, group) for text in extra_groups]
    return ResolvedUser(
        uid=uid,
        gid=gid,
        groups=tuple(dict.fromkeys([gid, *supplementary])),
        home=(account.home if account else "") or "/",
        name=account.name if account else "",
    )


def _find_account(text: str, passwd: bytes) -> tuple[_Account | None, int]:
    number = _number(text)
    for account in _accounts(passwd):
        if account.name == text or account.uid == number:
            return account, account.uid
    if number is None:
        raise InvalidUser(
            f"unable to find user {text}: no matching entry in the image's /etc/passwd",
            hint="add the user in a RUN step, or use a numeric uid",
        )
    return None, _in_range(number, "uid")


def _find_group(text: str, group: bytes) -> int:
    number = _number(text)
    for name, gid, _ in _groups(group):
        if name == text or gid == number:
            return gid
    if number is None:
        raise InvalidUser(
            f"unable to find group {text}: no matching entry in the image's /etc/group"
        )
    return _in_range(number, "gid")


def _in_range(number: int, what: str) -> int:
    if number > MAX_ID:
        raise InvalidUser(f"{what} {number} is out of range (0 to {MAX_ID})")
    return number


def _number(text: str) -> int | None:
    return int(text) if text.isascii() and text.isdigit() and len(text) < 20 else None


def _accounts(passwd: bytes) -> Iterator[_Account]:
    """The lines of a passwd file that follow its format; others are skipped."""
    for fields in _lines(passwd):
        if len(fields) >= 6:
            uid, gid = _number(fields[2]), _number(fields[3])
            if uid is not None and gid is not None and max(uid, gid) <= MAX_ID:
                yield _Account(name=fields[0], uid=uid, gid=gid, home=fields[5])


def _groups(group: bytes) -> Iterator[tuple[str, int, list[str]]]:
    """(name, gid, members) of the lines of a group file that follow its format."""
    for fields in _lines(group):
        if len(fields) >= 3:
            gid = _number(fields[2])
            if gid is not None and gid <= MAX_ID:
                yield fields[0], gid, fields[3].split(",") if len(fields) > 3 else []


def _lines(data: bytes) -> Iterator[list[str]]:
    for line in data.decode("utf-8", "surrogateescape").split("\n"):
        if line.strip() and not line.startswith("#"):
            yield line.strip().split(":")


def needs_accounts(user: str, extra_groups: tuple[str, ...] = ()) -> bool:
    """Whether a failure to read the account files matters: some name has to be looked up."""
    names = [*user.partition(":")[::2], *extra_groups]
    return any(text and _number(text) is None for text in names)


def read_accounts(root_fd: int, user: str, extra_groups: tuple[str, ...] = ()) -> ResolvedUser:
    """`resolve_user` with the files of the rootfs open as directory `root_fd`.

    A file that is missing or not usable counts as empty when only numbers are asked for.

    Raises:
        InvalidUser: as `resolve_user`; or a file is needed and is not regular or too large.
    """
    strict = needs_accounts(user, extra_groups)
    passwd = _read(root_fd, b"etc/passwd", strict=strict)
    group = _read(root_fd, b"etc/group", strict=strict)
    return resolve_user(user, passwd=passwd, group=group, extra_groups=extra_groups)


def process_user(root_fd: int, user: str, extra_groups: tuple[str, ...] = ()) -> ResolvedUser:
    """`read_accounts`, for a process that is to run here: in a user namespace with ids that it has.

    Supplementary groups that it has not are left out: Alpine's root is a member of a dozen.

    Raises:
        InvalidUser: as `read_accounts`.
        LaminaError: kind UNSUPPORTED, the user's own ids are not mapped.
    """
    from lamina.system.userns import check_ids, is_mapped, is_namespaced

    found = read_accounts(root_fd, user, extra_groups)
    if not is_namespaced():
        return found
    check_ids(found.uid, found.gid, what=f"cannot run as user {user or 'root'!r}")
    return replace(found, groups=tuple(group for group in found.groups if is_mapped(0, group)))


def _read(root_fd: int, path: bytes, *, strict: bool) -> bytes:
    import os
    import stat

    from lamina.system.paths import open_in_root

    shown = "/" + path.decode()
    try:
        # O_NONBLOCK: opening a FIFO must not wait for a writer.
        descriptor = open_in_root(root_fd, path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except (OSError, LaminaError):
        return b""  # no file: names are reported as not found
    try:
        status = os.fstat(descriptor)
        if stat.S_ISREG(status.st_mode) and status.st_size <= MAX_ACCOUNTS:
            return os.read(descriptor, MAX_ACCOUNTS)
    finally:
        os.close(descriptor)
    if not strict:
        return b""
    why = "too large" if stat.S_ISREG(status.st_mode) else "not a regular file"
    raise InvalidUser(f"cannot look up users: the image's {shown} is {why}")
