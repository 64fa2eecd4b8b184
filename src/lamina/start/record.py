# SPDX-License-Identifier: Apache-2.0
"""`Record`: frozen, slotted value classes that cost nothing to import.

The type checker sees a frozen dataclass (PEP 681). At run time the standard `dataclasses` module
costs about 17 ms to import and 0.3 ms a class, which is half of lamina's start-up budget
(docs/adr/0002-records.md), so `__init__` is compiled when a class has had some instances.

A field's default must be immutable. `__post_init__` runs if there is one. An annotated name in capitals
is a constant of the class, no field.
"""

from __future__ import annotations

__all__ = ["Record", "defaults", "fields", "replace"]

TYPE_CHECKING = False
if TYPE_CHECKING:
    from dataclasses import replace

    from typing_extensions import dataclass_transform

    @dataclass_transform(frozen_default=True)
    class Record: ...

    def fields(cls: type[object]) -> tuple[str, ...]: ...
    def defaults(cls: type[object]) -> dict[str, object]: ...
else:

    def fields(cls):
        """The field names of a record class, inherited ones first."""
        return cls.__record_fields__

    def defaults(cls):
        """The defaults of a record class, by field."""
        return cls.__record_defaults__

    def replace(instance, /, **changes):
        """A copy of `instance` with `changes` applied (validated again by `__post_init__`)."""
        values = {name: getattr(instance, name) for name in instance.__record_fields__}
        values.update(changes)
        return type(instance)(**values)

    def _first_init(self, *args, **kwargs):
        # Every record class has an `__init__` of its own, so this one is of the instance's class: also
        # for a thread that looked it up before another one put the compiled one in its place.
        cls = type(self)
        made = _MADE.get(cls, 0)
        if made < _COMPILE_AFTER and _init_plainly(self, cls, args, kwargs):
            _MADE[cls] = made + 1
            return
        init = cls.__init__ = _compile_init(cls)  # twice, if two threads are here: both are right
        init(self, *args, **kwargs)

    _MADE = {}  # the first instances of each class; a guide only: threads may lose one
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

    def _annotations(body):
        """What the class body annotates, by name."""
        if "__annotations__" in body or not body.keys() & {"__annotate__", "__annotate_func__"}:
            return body.get("__annotations__", ())
        # Python 3.14 without `from __future__ import annotations`: evaluated when they are asked for
        from annotationlib import Format, call_annotate_function, get_annotate_from_class_namespace

        # a name that is defined later, or for the type checker only, is no concern of ours
        return call_annotate_function(get_annotate_from_class_namespace(body), Format.FORWARDREF)

    class _RecordType(type):
        """Makes the class once, with slots for its own fields."""

        def __new__(mcs, name, bases, body):
            annotated = [field for field in _annotations(body) if not field.isupper()]
            names, defaults = [], {}
            for base in bases:
                names += base.__record_fields__
                defaults |= base.__record_defaults__
            own = [field for field in annotated if field not in names]
            for field in annotated:
                if field in body:
                    defaults[field] = body.pop(field)
                else:
                    defaults.pop(field, None)
            body["__slots__"] = own
            body["__record_fields__"] = body["__match_args__"] = (*names, *own)
            body["__record_defaults__"] = defaults
            body["__init__"] = _first_init
            return type.__new__(mcs, name, bases, body)

    class Record(metaclass=_RecordType):
        """An immutable value: equal if of the same class with equal fields."""

        def __eq__(self, other):
            if type(self) is not type(other):
                return NotImplemented
            return _values(self) == _values(other)

        def __hash__(self):
            return hash((type(self), *_values(self)))

        def __repr__(self):
            inside = ", ".join(f"{name}={getattr(self, name)!r}" for name in self.__record_fields__)
            return f"{type(self).__name__}({inside})"

        def __setattr__(self, name, value):
            raise AttributeError(f"{type(self).__name__} is immutable: cannot set {name!r}")

        def __delattr__(self, name):
            raise AttributeError(f"{type(self).__name__} is immutable: cannot delete {name!r}")

        def __reduce__(self):
            return (type(self), _values(self))
