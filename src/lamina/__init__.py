# SPDX-License-Identifier: Apache-2.0
"""lamina: container images for Python people, with no daemon.

    import lamina

    image = lamina.build(".", tags=["app"])
    container = lamina.run(image, ports={8000: 8000})

Names are imported on first use: `import lamina` alone costs nothing. None may be that of a module
of this package: importing that would put the module in its place.
"""

from __future__ import annotations

from lamina.version import __version__

TYPE_CHECKING = False
if TYPE_CHECKING:
    from lamina.app.api import (
        Container,
        Image,
        build,
        enter_namespace,
        find_image,
        open_store,
        pull,
        push,
        run,
    )
    from lamina.errors import Cancelled, Kind, LaminaError, SourceError

__all__ = [
    "Cancelled",
    "Container",
    "Image",
    "Kind",
    "LaminaError",
    "SourceError",
    "__version__",
    "build",
    "enter_namespace",
    "find_image",
    "open_store",
    "pull",
    "push",
    "run",
]

_ERRORS = frozenset({"Cancelled", "Kind", "LaminaError", "SourceError"})

if not TYPE_CHECKING:  # a type checker would take every name for one that there is

    def __getattr__(name: str) -> object:
        if name not in __all__:
            raise AttributeError(f"module 'lamina' has no attribute {name!r}")
        import importlib

        module = importlib.import_module("lamina.errors" if name in _ERRORS else "lamina.app.api")
        value = getattr(module, name)
        globals()[name] = value
        return value
