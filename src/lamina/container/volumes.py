# SPDX-License-Identifier: Apache-2.0
"""Volumes: directories with a name that outlive containers, as Docker's local driver keeps them.

`volumes/<name>/_data` in the store has a volume's files, `volumes/<name>/volume.json` says that the
volume is there, and what it was made with.

Rules (docs/adr/0114-volumes.md)
- A volume exists if its `volume.json` does: written aside and renamed when all else is there,
  unlinked before anything else goes. What a killed process leaves without it is rubbish that no
  command shows; `create` of that name and `remove_rubbish` take it away.
- A volume is changed under its lock, which ends with its holder.
- A container's record names the volumes before they are made, and is deleted after them; `remove`
  looks into the records under the volume's lock. So no volume goes that a container has, and none is
  half there, without a lock over containers and volumes.
"""

from __future__ import annotations

import os

from lamina.container.state import KIND
from lamina.errors import Kind, LaminaError
from lamina.start.jsontext import dumps, loads
from lamina.start.record import Record
from lamina.store.eventlog import note
from lamina.system.locks import FileLock
from lamina.system.paths import unlink_if_there
from lamina.system.removal import remove_tree

TYPE_CHECKING = False
if TYPE_CHECKING:
    from lamina.store.ports import Store

ANONYMOUS = "com.docker.volume.anonymous"  # label of a volume whose name was made up; moby's
FILE, DATA = "volume.json", "_data"
_MARKS = str.maketrans("", "", "_.-")  # beside letters and digits; moby, daemon/names/names.go
_LONGEST_NAME = 255  # bytes of a directory's name
_OPTIONS = ("device", "o", "size", "type")  # moby, volume/local/local_unix.go
_NEEDED = {"device": ("type",), "o": ("device", "type"), "type": ("device",)}
_BIND_WORDS = frozenset({"bind", "rbind", "ro", "rw"})


class VolumeNotFound(LaminaError):
    kind = Kind.NOT_FOUND


class Volume(Record):
    """What a volume was made with; `options` are the local driver's. `created` in POSIX seconds, 0
    where it is only wanted or is damaged.
    """

    name: str
    labels: tuple[tuple[str, str], ...] = ()
    options: tuple[tuple[str, str], ...] = ()
    created: float = 0.0

    @property
    def is_anonymous(self) -> bool:
        """Whether nobody chose its name."""
        return ANONYMOUS in dict(self.labels)

    @property
    def device(self) -> str:
        """The host's directory that takes the place of `_data`; empty for most volumes."""
        return dict(self.options).get("device", "")

    @property
    def is_read_only(self) -> bool:
        """Whether its own options forbid writing."""
        return "ro" in dict(self.options).get("o", "").split(",")


def directory_of(root: str, name: str) -> str:
    """The volume's directory in the store at `root`."""
    return f"{root}/volumes/{name}"


def data_of(root: str, name: str) -> str:
    """Where the volume's files are: Docker's mount point."""
    return f"{root}/volumes/{name}/{DATA}"


def check_name(name: str) -> str:
    """`name` if it can be a volume's. Raises LaminaError of kind USAGE."""
    if len(name) < 2:
        raise LaminaError(
            "volume name is too short, names should be at least two alphanumeric characters",
            kind=Kind.USAGE,
        )
    letters = name.translate(_MARKS)
    if not (name[0].isalnum() and letters.isalnum() and letters.isascii()):
        raise LaminaError(
            f'"{name}" includes invalid characters for a local volume name, only '
            '"[a-zA-Z0-9][a-zA-Z0-9_.-]" are allowed. If you intended to pass a host directory, '
            "use absolute path",
            kind=Kind.USAGE,
        )
    if len(name) > _LONGEST_NAME:
        raise LaminaError(f"volume name is too long: {name}", kind=Kind.USAGE)
    return name


def check_options(options: tuple[tuple[str, str], ...]) -> None:
    """Raise LaminaError (USAGE, UNSUPPORTED) unless they are none, or bind a directory of the host."""
    given = dict(options)
    for key in given:
        if key not in _OPTIONS:
            raise LaminaError(f'invalid option: "{key}"', kind=Kind.USAGE)
    if "size" in given:
        raise LaminaError(
            "option size: quota size requested but no quota support", kind=Kind.UNSUPPORTED
        )
    for key, needed in _NEEDED.items():
        for other in needed if key in given else ():
            if other not in given:
                raise LaminaError(f'missing required option: "{other}"', kind=Kind.USAGE)
    words = given.get("o", "").split(",")
    if given and not (
        given["type"] in {"none", "bind"}
        and {"bind", "rbind"} & set(words)
        and _BIND_WORDS.issuperset(words)
    ):
        raise LaminaError(
            f"volume options type={given['type']}, o={given.get('o', '')} are not supported",
            kind=Kind.UNSUPPORTED,
            hint="type=none, o=bind and device=/DIRECTORY are; --tmpfs makes a tmpfs",
        )
    if given and not given["device"].startswith("/"):
        raise LaminaError(
            f"volume option device={given['device']}: the path must be absolute", kind=Kind.USAGE
        )


def tell(store: Store, action: str, name: str, **attributes: str) -> None:
    """Note an event of the volume, as `docker events` names them."""
    note(store.root, "volume", action, name, {"driver": "local", **attributes})


def lock(store: Store, name: str) -> FileLock:
    """Held while the volume changes; waits. Whoever inherits its descriptor holds it, too."""
    found = store.lock(f"volume {name}")
    assert isinstance(found, FileLock)
    return found


def create(store: Store, wanted: Volume) -> Volume:
    """The volume of that name; made, with these labels and options, if it is not there.

    Raises LaminaError of kind USAGE or UNSUPPORTED (name, options).
    """
    check_name(wanted.name)
    check_options(wanted.options)
    with lock(store, wanted.name):
        return ensure(store, wanted)


def ensure(store: Store, wanted: Volume) -> Volume:
    """As `create`, for who holds the volume's lock and has checked what is wanted."""
    found = get(store, wanted.name)
    if found is not None:
        return found
    directory = directory_of(store.root, wanted.name)
    if os.path.lexists(directory):
        remove_tree(directory)  # of a process that was killed in here, or in `remove`
    os.makedirs(os.path.dirname(directory), mode=0o700, exist_ok=True)
    os.mkdir(directory, 0o700)
    data = data_of(store.root, wanted.name)
    os.mkdir(data)
    os.chmod(data, 0o755)  # noqa: S103  # Docker's mode, whatever the umask
    body = {"labels": dict(wanted.labels), "options": dict(wanted.options)}
    with open(f"{directory}/{FILE}.new", "w", encoding="utf-8") as file:
        file.write(dumps(body))
        file.flush()
        os.fsync(file.fileno())
    os.rename(f"{directory}/{FILE}.new", f"{directory}/{FILE}")
    tell(store, "create", wanted.name)
    return get(store, wanted.name) or wanted


def get(store: Store, name: str) -> Volume | None:
    """The volume; None if there is none. Raises LaminaError of kind INVALID if it is damaged."""
    path = f"{directory_of(store.root, name)}/{FILE}"
    try:
        with open(path, encoding="utf-8") as file:
            created = os.fstat(file.fileno()).st_mtime
            body = loads(file.read())
        labels, options = (tuple(sorted(body[key].items())) for key in ("labels", "options"))
        return Volume(name, labels, options, created)
    except (FileNotFoundError, NotADirectoryError):
        return None
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise LaminaError(
            f"{path} is damaged: {error}",
            kind=Kind.INVALID,
            hint=f"{DATA} beside it has the files; 'lamina volume rm {name}' removes the volume",
        ) from error


def find(store: Store, name: str) -> Volume:
    """The volume. Raises VolumeNotFound, and LaminaError of kind INVALID if it is damaged."""
    found = get(store, name) if _is_name(name) else None
    if found is None:
        raise VolumeNotFound(f"get {name}: no such volume")
    return found


def _is_name(name: str) -> bool:
    try:
        check_name(name)
    except LaminaError:
        return False
    return True


def listed(store: Store) -> list[Volume]:
    """Every volume by name; of a damaged one nothing but the name is known."""
    found = []
    for name in sorted(_names(store)):
        try:
            volume = get(store, name)
        except LaminaError:
            volume = Volume(name)
        if volume is not None:
            found.append(volume)
    return found


def _names(store: Store) -> list[str]:
    try:
        return os.listdir(f"{store.root}/volumes")
    except FileNotFoundError:
        return []


def users(store: Store) -> dict[str, list[str]]:
    """The ids of the containers that have each volume; of those that can be read."""
    found: dict[str, list[str]] = {}
    for document in store.documents.list(KIND):
        for name in sorted(_volumes_in(document.body) or ()):
            found.setdefault(name, []).append(document.id)
    return found


def users_of(store: Store, name: str) -> list[str]:
    """The ids of the containers that have the volume; of a damaged one that has its name."""
    found = []
    for document in store.documents.list(KIND):
        if name in document.body:  # first: reading is a hundred times as slow
            volumes = _volumes_in(document.body)
            if volumes is None or name in volumes:
                found.append(document.id)
    return found


def _volumes_in(body: str) -> set[str] | None:
    """The volumes that a container's record names; None if it is damaged."""
    try:
        mounts = loads(body)["process"]["mounts"]
        return {str(each["source"]) for each in mounts if each["type"] == "volume"}
    except (ValueError, KeyError, TypeError):
        return None


def remove(store: Store, name: str, *, ignoring: str = "") -> None:
    """Delete the volume and all in it. `ignoring` is a container that is being removed.

    Raises LaminaError: VolumeNotFound, or of kind CONFLICT if a container has it.
    """
    if not _is_name(name):
        raise VolumeNotFound(f"get {name}: no such volume")
    directory = directory_of(store.root, name)
    with lock(store, name):
        if not os.path.lexists(f"{directory}/{FILE}"):
            raise VolumeNotFound(f"get {name}: no such volume")
        holders = [id for id in users_of(store, name) if id != ignoring]
        if holders:
            raise LaminaError(
                f"remove {name}: volume is in use - [{', '.join(holders)}]", kind=Kind.CONFLICT
            )
        unlink_if_there(f"{directory}/{FILE}")
        remove_tree(directory)
        tell(store, "destroy", name)


def remove_rubbish(store: Store) -> int:
    """Remove what killed processes left of volumes; bytes freed."""
    freed = 0
    for name in _names(store):
        directory = directory_of(store.root, name)
        if os.path.lexists(f"{directory}/{FILE}"):
            continue
        with lock(store, name):  # whoever makes it now is done when we have the lock
            if not os.path.lexists(f"{directory}/{FILE}") and os.path.isdir(directory):
                freed += remove_tree(directory)
    return freed
