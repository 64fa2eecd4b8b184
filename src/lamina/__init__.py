# SPDX-License-Identifier: Apache-2.0
"""lamina: container images for Python people, with no daemon.

    import lamina

    image = lamina.build(".", tags=["app"])
    with lamina.containers.run(image, detach=True, ports={8000: 8000}) as container:
        container.exec("id").stdout

`images`, `containers`, `volumes`, `networks` and `builds` are what is in the store; docs/python.md shows their use. Names are
imported on first use: `import lamina` alone costs nothing. None may be that of a module of this
package: importing that would put the module in its place.
"""

from __future__ import annotations

from lamina.version import __version__

TYPE_CHECKING = False
if TYPE_CHECKING:
    from lamina.app.api import build, enter_namespace, pull, push, run
    from lamina.app.apibuilds import builds_api as builds
    from lamina.app.apicontainers import Container, ContainerFailed, ExecResult
    from lamina.app.apicontainers import containers_api as containers
    from lamina.app.apiimages import images_api as images
    from lamina.app.apinetworks import Network
    from lamina.app.apinetworks import networks_api as networks
    from lamina.app.apistore import find_image, open_store
    from lamina.app.apivolumes import Volume
    from lamina.app.apivolumes import volumes_api as volumes
    from lamina.app.run_options import RunOptions
    from lamina.app.runhealth import health_check
    from lamina.app.runmounts import bind_mount, tmpfs_mount, volume_mount
    from lamina.app.runnetworks import network_request
    from lamina.container.network.publish import PortMapping
    from lamina.container.usage import Usage
    from lamina.errors import Cancelled, Kind, LaminaError, SourceError
    from lamina.image.view import Image
    from lamina.tasks import CancelToken

__all__ = [
    "CancelToken",
    "Cancelled",
    "Container",
    "ContainerFailed",
    "ExecResult",
    "Image",
    "Kind",
    "LaminaError",
    "Network",
    "PortMapping",
    "RunOptions",
    "SourceError",
    "Usage",
    "Volume",
    "__version__",
    "bind_mount",
    "build",
    "builds",
    "containers",
    "enter_namespace",
    "find_image",
    "health_check",
    "images",
    "network_request",
    "networks",
    "open_store",
    "pull",
    "push",
    "run",
    "tmpfs_mount",
    "volume_mount",
    "volumes",
]

# where each name is: a module, and another name there if it has one
_HOMES = {
    "CancelToken": "lamina.tasks",
    "Cancelled": "lamina.errors",
    "Container": "lamina.app.apicontainers",
    "ContainerFailed": "lamina.app.apicontainers",
    "ExecResult": "lamina.app.apicontainers",
    "Image": "lamina.image.view",
    "Kind": "lamina.errors",
    "LaminaError": "lamina.errors",
    "Network": "lamina.app.apinetworks",
    "PortMapping": "lamina.container.network.publish",
    "RunOptions": "lamina.app.run_options",
    "SourceError": "lamina.errors",
    "Usage": "lamina.container.usage",
    "Volume": "lamina.app.apivolumes",
    "bind_mount": "lamina.app.runmounts",
    "builds": "lamina.app.apibuilds:builds_api",
    "containers": "lamina.app.apicontainers:containers_api",
    "find_image": "lamina.app.apistore",
    "health_check": "lamina.app.runhealth",
    "images": "lamina.app.apiimages:images_api",
    "network_request": "lamina.app.runnetworks",
    "networks": "lamina.app.apinetworks:networks_api",
    "open_store": "lamina.app.apistore",
    "tmpfs_mount": "lamina.app.runmounts",
    "volume_mount": "lamina.app.runmounts",
    "volumes": "lamina.app.apivolumes:volumes_api",
}

if not TYPE_CHECKING:  # a type checker would take every name for one that there is

    def __getattr__(name: str) -> object:
        if name not in __all__:
            raise AttributeError(f"module 'lamina' has no attribute {name!r}")
        import importlib

        module, _, inside = _HOMES.get(name, "lamina.app.api").partition(":")
        value = getattr(importlib.import_module(module), inside or name)
        globals()[name] = value
        return value

    def __dir__() -> list[str]:
        return sorted({*globals(), *__all__})
