# SPDX-License-Identifier: Apache-2.0
"""`@record`: frozen, slotted value classes that cost nothing to import.

The type checker sees a frozen dataclass (PEP 681). At run time the standard `dataclasses` module
costs about 17 ms to import and 0.3 ms a class, which is half of lamina's start-up budget
(docs/adr/0002-records.md), so `__init__` is compiled when a class has had some instances.

A field's default must be immutable. `__post_init__` runs if there is one. Zero-argument `super()`
does not work inside a record (the class is rebuilt to get its slots).
"""

from __future__ import annotations

__all__ = ["fields", "record", "replace"]

TYPE_CHECKING = False
if TYPE_CHECKING:
    from dataclasses import replace
    from typing import TypeVar

    from typing_extensions import dataclass_transform

    _T = TypeVar("_T")

    @dataclass_transform(frozen_default=True)
    def record(cls: type[_T]) -> type[_T]: ...

    def fields(cls: type[object]) -> tuple[str, ...]: ...
else:

    def record(cls):
        """Rebuild `cls` as an immutable class with slots, value equality, hash and repr."""
        own = [name for name in cls.__dict__.get("__annotations__", {}) if not name.isupper()]
        inherited, defaults = [], {}
        for base in reversed(cls.__mro__[1:]):
            inherited += [n for n in base.__dict__.get("__record_own__", ()) if n not in inherited]
            defaults.update(base.__dict__.get("__record_defaults__", {}))
        names = tuple(inherited + [name for name in own if name not in inherited])
        body = dict(cls.__dict__)
        for name in own:
            if name in body:
                defaults[name] = body.pop(name)
            else:
                defaults.pop(name, None)
        body.pop("__dict__", None)
        body.pop("__weakref__", None)
        body["__slots__"] = tuple(name for name in own if name not in inherited)
        body["__record_own__"] = tuple(own)
        body["__record_fields__"] = names
        body["__record_defaults__"] = defaults
        body["__match_args__"] = names
        for name, method in _METHODS.items():
            body.setdefault(name, method)
        body["__init__"] = _first_init
        return type(cls)(cls.__name__, cls.__bases__, body)

    def fields(cls):
        """The field names of a record class, inherited ones first."""
        return cls.__record_fields__

    def replace(instance, /, **changes):
        """A copy of `instance` with `changes` applied (validated again by `__post_init__`)."""
        values = {name: getattr(instance, name) for name in instance.__record_fields__}
        values.update(changes)
        return type(instance)(**values)

    def _first_init(self, *args, **kwargs):
        # another thread may have compiled it since this call was looked up: then none is found
        cls = next(
            (c for c in type(self).__mro__ if c.__dict__.get("__init__") is _first_init), None
        )
        if cls is None:
            type(self).__init__(self, *args, **kwargs)
            return
        made = _MADE.get(cls, 0)
        if made < _COMPILE_AFTER and _init_plainly(self, cls, args, kwargs):
            _MADE[cls] = made + 1
            return
        _MADE.pop(cls, None)
        cls.__init__ = _compile_init(cls)
        cls.__init__(self, *args, **kwargs)

    _MADE = {}  # instances of each class so far; a guide only: threads may lose one
    _COMPILE_AFTER = (
        12  # compiling takes 80 us, a plain initialisation 5 us more than a compiled one
    )

    def _init_plainly(self, cls, args, kwargs):
        """Set the fields without compiled code; False (and nothing set) if the call is wrong."""
        names = cls.__record_fields__
        if len(args) > len(names):
            return False
        values = cls.__record_defaults__ | dict(zip(names, args, strict=False))
        if kwargs:
            if not kwargs.keys() <= set(names[len(args) :]):
                return False
            values |= kwargs
        if len(values) < len(names):
            return False
        put = object.__setattr__
        for name in names:
            put(self, name, values[name])
        if hasattr(cls, "__post_init__"):
            self.__post_init__()
        return True

    def _compile_init(cls):
        scope = {}
        parameters, lines = [], []
        for name in cls.__record_fields__:
            if name in cls.__record_defaults__:
                scope[f"_default_{name}"] = cls.__record_defaults__[name]
                parameters.append(f"{name}=_default_{name}")
            else:
                parameters.append(name)
            scope[f"_set_{name}"] = getattr(cls, name).__set__
            lines.append(f"    _set_{name}(self, {name})")
        if hasattr(cls, "__post_init__"):
            lines.append("    self.__post_init__()")
        source = f"def __init__(self, {', '.join(parameters)}):\n" + (
            "\n".join(lines) or "    pass"
        )
        exec(source, scope)  # noqa: S102  # the names come from the class's own annotations
        init = scope["__init__"]
        init.__qualname__ = f"{cls.__qualname__}.__init__"
        return init

    def _values(self):
        return tuple([getattr(self, name) for name in self.__record_fields__])

    def _eq(self, other):
        if type(self) is not type(other):
            return NotImplemented
        return _values(self) == _values(other)

    def _hash(self):
        return hash((type(self), *_values(self)))

    def _repr(self):
        inside = ", ".join(f"{name}={getattr(self, name)!r}" for name in self.__record_fields__)
        return f"{type(self).__name__}({inside})"

    def _frozen_set(self, name, value):
        raise AttributeError(f"{type(self).__name__} is immutable: cannot set {name!r}")

    def _frozen_delete(self, name):
        raise AttributeError(f"{type(self).__name__} is immutable: cannot delete {name!r}")

    def _reduce(self):
        return (type(self), _values(self))

    _METHODS = {
        "__eq__": _eq,
        "__hash__": _hash,
        "__repr__": _repr,
        "__setattr__": _frozen_set,
        "__delattr__": _frozen_delete,
        "__reduce__": _reduce,
    }
