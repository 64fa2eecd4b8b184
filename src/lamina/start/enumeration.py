# SPDX-License-Identifier: Apache-2.0
"""`Enumeration`: closed sets of named constants that cost nothing to import.

The type checker sees `enum.Enum`. At run time the standard `enum` module costs about 5 ms to import
and 0.2 ms a class (docs/adr/0089-lean-start.md). Members are compared by identity and iterate in the
order written; `Class(value)` finds the member of a value. No aliases, no methods that are members.
"""

from __future__ import annotations

__all__ = ["Enumeration"]

TYPE_CHECKING = False
if TYPE_CHECKING:
    from enum import Enum as Enumeration
else:

    class _Closed(type):
        def __new__(mcs, name, bases, body):
            values = {
                key: value
                for key, value in body.items()
                if not (key.startswith("_") or hasattr(value, "__get__"))
            }
            kept = {key: value for key, value in body.items() if key not in values}
            cls = super().__new__(mcs, name, bases, kept)
            members = {}
            for key, value in values.items():
                member = object.__new__(cls)
                object.__setattr__(member, "name", key)
                object.__setattr__(member, "value", value)
                members[key] = member
                type.__setattr__(cls, key, member)
            type.__setattr__(cls, "__members__", members)
            type.__setattr__(cls, "_by_value", {each.value: each for each in members.values()})
            return cls

        def __call__(cls, value):
            if isinstance(value, cls):
                return value
            try:
                return cls._by_value[value]
            except (KeyError, TypeError):
                raise ValueError(f"{value!r} is not a valid {cls.__qualname__}") from None

        def __getitem__(cls, name):
            return cls.__members__[name]

        def __iter__(cls):
            return iter(cls.__members__.values())

        def __len__(cls):
            return len(cls.__members__)

        def __contains__(cls, value):
            return isinstance(value, cls) or value in cls._by_value

        def __setattr__(cls, name, value):
            raise AttributeError(f"{cls.__name__} is closed: cannot set {name!r}")

    class Enumeration(metaclass=_Closed):
        """Base of closed sets: `class Kind(Enumeration): USAGE = "usage"`."""

        def __setattr__(self, name, value):
            raise AttributeError(f"{type(self).__name__} is closed: cannot set {name!r}")

        def __repr__(self):
            return f"<{type(self).__name__}.{self.name}: {self.value!r}>"

        def __str__(self):
            return f"{type(self).__name__}.{self.name}"

        def __reduce__(self):
            return (type(self), (self.value,))

        def __copy__(self):
            return self

        def __deepcopy__(self, memo):
            return self
