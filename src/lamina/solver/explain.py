# SPDX-License-Identifier: Apache-2.0
"""Why a step was not cached: the first difference between its key tree and an earlier one. Pure.

A step's key names its base by the base's own key, so trees form a *line* from the base image up to
the step. Two lines are compared from the bottom: where they part is where the cause lies, whichever
step asks.
"""

from __future__ import annotations

from lamina.dockerfile.operands import FLAGS
from lamina.solver.keytree import KeyTree
from lamina.start.jsontext import dumps
from lamina.start.record import Record, replace

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from typing import Any

    Trees = Callable[[str], "KeyTree | None"]

NEW = "new"
PRUNED = "pruned"
NO_CACHE = "no-cache"
FILE_ADDED = "file-added"
FILE_REMOVED = "file-removed"
FILE_RENAMED = "file-renamed"
FILE_CONTENT = "file-content"
FILE_MODE = "file-mode"
FILE_TYPE = "file-type"
FILE_LINK = "file-link"
FILE_OWNER = "file-owner"
FILE_ATTRIBUTES = "file-attributes"
FILES = "files"  # too many to list, or listed by an earlier lamina
ARG = "arg"
ENV = "env"
INSTRUCTION = "instruction"
INSTRUCTION_ADDED = "instruction-added"
INSTRUCTION_REMOVED = "instruction-removed"
INSTRUCTION_MOVED = "instruction-moved"
SETTING = "setting"
MOUNT = "mount"
BASE = "base"
PLATFORM = "platform"
INPUT = "input"
FORMAT = "format"
_LINE = 120  # characters of a value in a sentence
_SECRET_WORDS = frozenset(
    {"apikey", "auth", "credential", "credentials", "key", "password", "pword", "passwd", "secret",
     "token"}
)  # fmt: skip
_SETTINGS = {
    "cwd": "WORKDIR",
    "user": "USER",
    "hostname": "BUILDKIT_SANDBOX_HOSTNAME",
    "platform": "--platform",
    **{form.sets: f"--{name}" for name, form in FLAGS["RUN"].items() if form.sets},
    "extra_hosts": "--add-host",
    "shm_size": "--shm-size",
    "ulimits": "--ulimit",
}
_COPY_FLAGS = {
    **{
        form.sets: f"--{name}" for name, form in (FLAGS["COPY"] | FLAGS["ADD"]).items() if form.sets
    },
    "unpack": "unpacking of archives",
}


class Cause(Record):
    """What made a key differ: `kind` is one of this module's constants, `subject` what differs
    (a path, a variable, an instruction), `old` and `new` its values, `more` how many further
    differences there are beside it.
    """

    kind: str
    subject: str = ""
    old: str = ""
    new: str = ""
    more: int = 0


class Explanation(Record):
    """Why a step ran. `via` is the name of the step where the cause lies, empty for itself."""

    cause: Cause
    via: str = ""


def nearest(
    new: KeyTree, earlier: Sequence[KeyTree], *, site: str, follows: str, present: frozenset[str]
) -> KeyTree | None:
    """The earlier tree that differs least from `new`: the newest of the same site, if there is any.

    `follows` is the key of the tree that was nearest for the base. Another text of the instruction
    counts only if that text is not `present` in what is being built now (then it was moved).
    """
    kinds = [new.base[0], *[kind for kind, _ in new.sources]]
    best: tuple[tuple[object, ...], KeyTree] | None = None
    for old in earlier:
        if old.key == new.key or old.op.get("type") != new.op.get("type"):
            continue
        same_text = old.instruction == new.instruction
        if not same_text and old.instruction in present:
            continue
        old_kinds = [old.base[0], *[kind for kind, _ in old.sources]]
        sources = sum(a != b for a, b in zip(old.sources, new.sources, strict=False))
        base = 0 if old.base == new.base else 1 if old.base[1] == follows else 2
        rank = (
            old.about.get("site", "") != site,
            not same_text,
            old_kinds[1:] != kinds[1:],
            old_kinds[0] != kinds[0],
            len(_op_causes(old, new)) + sources + base,
            base,
            -old.created,
        )
        if best is None or rank < best[0]:
            best = rank, old
    return best[1] if best is not None else None


def explain(new: KeyTree, old: KeyTree, trees: Trees) -> Explanation:
    """The cause of the difference of two trees. `trees` gives the tree of a key, if it is known."""
    return _Comparison(trees).explain(new, old)


class _Comparison:
    def __init__(self, trees: Trees) -> None:
        self._trees = trees
        self._depth = 0

    def explain(self, new: KeyTree, old: KeyTree) -> Explanation:
        self._depth += 1
        if self._depth > 100:  # stages copy from stages: no Dockerfile nests them deeper
            return Explanation(Cause(INPUT, new.name))
        news, olds = self._line(new), self._line(old)
        start = 0
        while start < min(len(news), len(olds)) - 1 and news[start].key == olds[start].key:
            start += 1
        if start == 0 and news[0].base != olds[0].base:
            cause = _base_cause(news[0], olds[0])
            if cause is not None:
                own = self.own(old, new) if len(news) == 1 else []
                return Explanation(replace(cause, more=len(own)))
        at, was = news[start], olds[start]
        moved = _moved(news[start:], olds[start:])
        if moved is not None:
            via = at.name if moved.kind != INSTRUCTION_REMOVED and at is not new else ""
            return Explanation(moved, via)
        causes = self.own(was, at)
        if not causes:
            return Explanation(Cause(INPUT, at.name), "")
        if at is not new:
            mine = self.own(old, new)
            if causes[0][0] in [cause for cause, _ in mine]:
                causes, at = mine, new
        cause, via = causes[0]
        if cause.kind != INSTRUCTION:  # another text may select and mount other files: no news
            cause = replace(cause, more=cause.more + len(causes) - 1)
        return Explanation(cause, via or ("" if at is new else at.name))

    def own(self, old: KeyTree, new: KeyTree) -> list[tuple[Cause, str]]:
        """The differences of the steps themselves, with the step where a source's lies."""
        causes = [(cause, "") for cause in _op_causes(old, new)]
        pairs = list(zip(old.sources, new.sources, strict=False))
        listed: tuple[list[dict[str, str]], list[dict[str, str]]] | None = None
        for position, (was, now) in enumerate(pairs):
            if was == now:
                continue
            if was[0] == now[0] == "definition":
                before = self._trees(was[1]) or old.merge(was[1])
                after = self._trees(now[1]) or new.merge(now[1])
                if before is not None and after is not None:
                    found = self.explain(after, before)
                    causes.append((found.cause, found.via or after.name))
                else:
                    causes.append((Cause(INPUT, after.name if after is not None else ""), ""))
            elif was[0] == now[0] == "content":
                if listed is None:
                    listed = old.files(), new.files()
                found_files = _at(listed[0], position), _at(listed[1], position)
                causes += [(cause, "") for cause in file_causes(*found_files)] or [
                    (Cause(FILES, new.instruction, _short(was[1]), _short(now[1])), "")
                ]
            else:
                cause = _image_cause(old, new, was, now)
                causes.append((cause or Cause(INPUT, new.name), ""))
        return causes

    def _line(self, tree: KeyTree) -> list[KeyTree]:
        """The trees below this one, lowest first, as far as they are known, and itself."""
        line = [tree]
        seen = {tree.key}
        while line[-1].base[0] == "definition":
            key = line[-1].base[1]
            below = self._trees(key) or line[-1].merge(key)
            if below is None or below.key in seen:
                break
            seen.add(below.key)
            line.append(below)
        line.reverse()
        return line


def _op_causes(old: KeyTree, new: KeyTree) -> list[Cause]:
    """What differs in the instruction itself, the weightiest first."""
    if old.document == new.document:
        return []
    was, now = old.op, new.op
    causes: list[Cause] = []
    if old.document.get("version") != new.document.get("version"):
        before, after = (_text(tree.document.get("version")) for tree in (old, new))
        causes.append(Cause(FORMAT, "cache format", before, after))
    if was.get("type") != now.get("type"):
        return [*causes, Cause(INSTRUCTION, new.instruction, old.instruction, new.instruction)]
    if now.get("type") == "Exec":
        causes += _argv_causes(old, new)
    else:
        causes += _action_causes(old, new)
    causes += _env_causes(was, now, new)
    for field in sorted(now.keys() | was.keys()):
        if field in {"type", "argv", "actions", "env", "mounts"} or was.get(field) == now.get(
            field
        ):
            continue
        label = _SETTINGS.get(field, field)
        causes.append(Cause(SETTING, label, _text(was.get(field)), _text(now.get(field))))
    return causes + _mount_causes(was, now, new)


def _argv_causes(old: KeyTree, new: KeyTree) -> list[Cause]:
    was, now = old.op.get("argv", []), new.op.get("argv", [])
    if was == now:
        return []
    if was[-1:] == now[-1:]:
        return [Cause(SETTING, "SHELL", _text(was[:-1]), _text(now[:-1]))]
    if old.instruction != new.instruction:
        return [Cause(INSTRUCTION, new.instruction, old.instruction, new.instruction)]
    return [Cause(INSTRUCTION, new.instruction, *_first_different_lines(was[-1], now[-1]))]


def _action_causes(old: KeyTree, new: KeyTree) -> list[Cause]:
    was, now = old.op.get("actions", []), new.op.get("actions", [])
    if was == now:
        return []
    flags: list[Cause] = []
    is_reworded = len(was) != len(now)
    for before, after in zip(was, now, strict=False):
        for field in sorted(before.keys() | after.keys()):
            if before.get(field) == after.get(field):
                continue
            if field in _COPY_FLAGS:
                values = _text(before.get(field)), _text(after.get(field))
                flags.append(Cause(SETTING, _COPY_FLAGS[field], *values))
            else:
                is_reworded = True
    if not is_reworded:
        return flags
    words = old.instruction, new.instruction
    if words[0] == words[1]:  # a variable in it has another value
        words = _places(was), _places(now)
    return [Cause(INSTRUCTION, new.instruction, *words), *flags]


def _places(actions: Sequence[Mapping[str, Any]]) -> str:
    found = []
    for action in actions:
        patterns = action.get("patterns")
        words = [*patterns, action.get("dest", "")] if patterns else [action.get("path", "")]
        found.append(" ".join(map(str, words)))
    return ", ".join(found)


def _env_causes(was: Mapping[str, Any], now: Mapping[str, Any], new: KeyTree) -> list[Cause]:
    before, after = (dict(map(tuple, op.get("env") or ())) for op in (was, now))
    arguments = set(new.about.get("args", ()))
    causes = []
    for name in [*after, *[name for name in before if name not in after]]:
        if before.get(name) != after.get(name):
            kind = ARG if name in arguments else ENV
            causes.append(Cause(kind, name, *_values(name, before.get(name), after.get(name))))
    if not causes and list(before) != list(after):
        causes.append(Cause(ENV, "order", " ".join(before), " ".join(after)))
    return causes


def _values(name: str, old: str | None, new: str | None) -> tuple[str, str]:
    if not _SECRET_WORDS.isdisjoint(name.lower().split("_")):
        return tuple("not set" if v is None else "(hidden)" for v in (old, new))  # type: ignore[return-value]  # two of two
    return _value(old), _value(new)


def _value(value: str | None) -> str:
    return "not set" if value is None else dumps(value, ensure_ascii=False)


def _mount_causes(was: Mapping[str, Any], now: Mapping[str, Any], new: KeyTree) -> list[Cause]:
    before, after = (
        {
            str(m.get("target") or m.get("id") or number): m
            for number, m in enumerate(op.get("mounts") or ())
        }
        for op in (was, now)
    )
    causes = []
    for target in [*after, *[target for target in before if target not in after]]:
        if before.get(target) != after.get(target):
            one, other = before.get(target), after.get(target)
            if one and other and one.get("content") != other.get("content"):  # a heredoc's program
                texts = str(one.get("content")), str(other.get("content"))
                causes.append(Cause(INSTRUCTION, new.instruction, *_first_different_lines(*texts)))
            else:
                causes.append(Cause(MOUNT, target, *_mount_texts(one, other)))
    if not causes and list(before.values()) != list(after.values()):
        causes.append(Cause(MOUNT, "order", " ".join(before), " ".join(after)))
    return causes


def _mount_texts(old: Mapping[str, Any] | None, new: Mapping[str, Any] | None) -> tuple[str, str]:
    """Both mounts, only with the fields in which they differ."""
    texts = []
    for one, other in ((old, new), (new, old)):
        if one is None:
            texts.append("not there")
            continue
        fields = [k for k in one if other is None or one.get(k) != other.get(k)]
        shown = [f"{k}={_text(one[k])}" for k in fields]
        texts.append(",".join(shown) or str(one.get("type", "")))
    return texts[0], texts[1]


def _base_cause(new: KeyTree, old: KeyTree) -> Cause | None:
    """The difference of two bases that are images; None if one of them is a step."""
    return _image_cause(old, new, old.base, new.base)


def _image_cause(
    old: KeyTree, new: KeyTree, was: tuple[str, str], now: tuple[str, str]
) -> Cause | None:
    if was[0] != "chain" or now[0] != "chain":
        return None
    before = old.about.get("images", {}).get(was[1])
    after = new.about.get("images", {}).get(now[1])
    if before is None or after is None:
        if before is None and after is None and was[1] and now[1]:
            return Cause(INPUT, new.name, _short(was[1]), _short(now[1]))
        texts = [
            "scratch" if not value[1] else image[0] if image else _short(value[1])
            for value, image in ((was, before), (now, after))
        ]
        return Cause(BASE, (after or before or [""])[0], texts[0], texts[1])
    if before[0] == after[0] and before[2] != after[2]:
        return Cause(PLATFORM, after[0], before[2], after[2])
    if before[0] != after[0]:
        return Cause(BASE, after[0], before[0], after[0])
    return Cause(BASE, after[0], before[1], after[1])


def _moved(news: Sequence[KeyTree], olds: Sequence[KeyTree]) -> Cause | None:
    """Whether the lines part because an instruction was added, removed or moved."""
    at, was = news[0], olds[0]
    if _same_step(at, was):
        return None
    later = any(_same_step(tree, was) for tree in news[1:])
    earlier = any(_same_step(tree, at) for tree in olds[1:])
    if later and earlier:
        return Cause(INSTRUCTION_MOVED, at.instruction, was.instruction, at.instruction)
    if later:
        return Cause(INSTRUCTION_ADDED, at.instruction, "", at.instruction)
    if earlier:
        return Cause(INSTRUCTION_REMOVED, was.instruction, was.instruction, "")
    return None


def _same_step(one: KeyTree, other: KeyTree) -> bool:
    return one.op == other.op and [k for k, _ in one.sources] == [k for k, _ in other.sources]


def file_causes(old: Mapping[str, str], new: Mapping[str, str]) -> list[Cause]:
    """What differs between two listings: `path` -> `type mode owner digest-or-target`. The row of a
    file with extended attributes that was read may end with the digest of its bytes alone.
    """
    if not old or not new:
        return []
    added = [path for path in new if path not in old]
    removed = [path for path in old if path not in new]
    if len(added) == len(removed) == 1 and old[removed[0]] == new[added[0]]:
        return [Cause(FILE_RENAMED, added[0], removed[0], added[0])]
    causes = [
        _file_cause(path, old[path], row)
        for path, row in new.items()
        if path in old and old[path] != row and _columns(old[path])[:4] != _columns(row)[:4]
    ]
    causes += [Cause(FILE_ADDED, path, "", new[path]) for path in added]
    causes += [Cause(FILE_REMOVED, path, old[path], "") for path in removed]
    return causes


def _file_cause(path: str, old: str, new: str) -> Cause:
    was, now = _columns(old), _columns(new)
    if was[0] != now[0]:
        return Cause(FILE_TYPE, path, was[0], now[0])
    differ = [number for number in (3, 1, 2) if was[number] != now[number]]
    more = len(differ) - 1
    if was[3] != now[3]:
        kind = FILE_LINK if now[0] == "symlink" else FILE_CONTENT
        has_attributes = was[3].startswith("attributes") or now[3].startswith("attributes")
        if now[0] == "dir":
            kind = FILE_ATTRIBUTES if has_attributes else FILES
        elif now[0] == "file" and (was[4] or was[3]) == (now[4] or now[3]):
            kind = FILE_ATTRIBUTES
        return Cause(kind, path, was[3], now[3], more)
    if was[1] != now[1]:
        return Cause(FILE_MODE, path, was[1], now[1], more)
    return Cause(FILE_OWNER, path, was[2], now[2], more)


def _columns(row: str) -> list[str]:
    """A row's five columns; only files have the last, and only targets of links have spaces."""
    columns = row.split(" ", 4 if row.startswith("file ") else 3)
    return columns + [""] * (5 - len(columns))


def sentence(explanation: Explanation) -> str:
    """The explanation in words, in one line."""
    cause = explanation.cause
    text = _WORDS[cause.kind].format(
        subject=cause.subject, old=_clip(cause.old), new=_clip(cause.new)
    )
    if cause.more:
        text += f" (and {cause.more} more difference{'s' * (cause.more > 1)})"
    if explanation.via:
        text += f", in {explanation.via}"
    return text


_WORDS = {
    NEW: "never built here",
    PRUNED: "its cache record was pruned: {subject}",
    NO_CACHE: "the cache was not to be used ({subject})",
    FILE_ADDED: "file added: {subject}",
    FILE_REMOVED: "file removed: {subject}",
    FILE_RENAMED: "file renamed: {old} -> {new}",
    FILE_CONTENT: "bytes of {subject} changed: {old} -> {new}",
    FILE_MODE: "mode of {subject} changed: {old} -> {new}",
    FILE_TYPE: "type of {subject} changed: {old} -> {new}",
    FILE_LINK: "link {subject} changed: {old} -> {new}",
    FILE_OWNER: "owner of {subject} changed: {old} -> {new}",
    FILE_ATTRIBUTES: "extended attributes of {subject} changed",
    FILES: "files changed below {subject}: {old} -> {new}",
    ARG: "ARG {subject} changed: {old} -> {new}",
    ENV: "ENV {subject} changed: {old} -> {new}",
    INSTRUCTION: "instruction changed: {old} -> {new}",
    INSTRUCTION_ADDED: "instruction added: {new}",
    INSTRUCTION_REMOVED: "instruction removed: {old}",
    INSTRUCTION_MOVED: "instruction moved: {new} now comes before {old}",
    SETTING: "{subject} changed: {old} -> {new}",
    MOUNT: "mount {subject} changed: {old} -> {new}",
    BASE: "base image {subject} changed: {old} -> {new}",
    PLATFORM: "platform of {subject} changed: {old} -> {new}",
    INPUT: "the files of {subject} changed, and its earlier record is gone",
    FORMAT: "{subject} changed: {old} -> {new}",
}


def _first_different_lines(old: str, new: str) -> tuple[str, str]:
    for was, now in zip(old.split("\n"), new.split("\n"), strict=False):
        if was != now:
            return was, now
    shorter = min(old.count("\n"), new.count("\n")) + 1
    rest = [(text.split("\n") + [""] * (shorter + 1))[shorter] for text in (old, new)]
    return rest[0], rest[1]


def _clip(text: str) -> str:
    flat = " ".join(text.split("\n"))
    return flat if len(flat) <= _LINE else flat[: _LINE - 1] + "…"


def _text(value: object) -> str:
    if value is None or value == "":
        return "not set"
    return value if isinstance(value, str) else dumps(value, ensure_ascii=False)


def _short(digest: str) -> str:
    return digest[:19]  # the algorithm and twelve hexadecimal digits


def _at(items: Sequence[dict[str, str]], position: int) -> dict[str, str]:
    return items[position] if position < len(items) else {}
