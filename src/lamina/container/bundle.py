# SPDX-License-Identifier: Apache-2.0
"""A bundle: the directory an OCI runtime reads `config.json` and the mounted /etc files from."""

from __future__ import annotations

import os

from lamina.container.etcfiles import SYSTEMD_RESOLV_CONF, hosts_file, resolv_conf
from lamina.container.ports import Mount
from lamina.container.spec import DEFAULT_HOSTNAME
from lamina.errors import Kind, LaminaError
from lamina.start.jsontext import dumps

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from lamina.container.ports import ProcessSpec

CA_DIRECTORY = "/run/lamina"
"""Where a step finds the CA bundle (docs/adr/0033-ca-bundle.md)."""

_CA_FILE = CA_DIRECTORY + "/ca-bundle.crt"
_APT_FILE = CA_DIRECTORY + "/apt.conf"
_APT_CONF = f'Acquire::https::CaInfo "{_CA_FILE}";\n'
CA_ENVIRONMENT: tuple[tuple[str, str], ...] = (
    ("SSL_CERT_FILE", _CA_FILE),  # OpenSSL, Go, Rust's native-certs, Ruby, uv
    ("CURL_CA_BUNDLE", _CA_FILE),
    ("REQUESTS_CA_BUNDLE", _CA_FILE),
    ("PIP_CERT", _CA_FILE),
    ("GIT_SSL_CAINFO", _CA_FILE),
    ("NODE_EXTRA_CA_CERTS", _CA_FILE),
    ("npm_config_cafile", _CA_FILE),
    ("CARGO_HTTP_CAINFO", _CA_FILE),
    ("AWS_CA_BUNDLE", _CA_FILE),
    ("DENO_CERT", _CA_FILE),
    ("PERL_LWP_SSL_CA_FILE", _CA_FILE),
    ("NIX_SSL_CERT_FILE", _CA_FILE),
    ("APT_CONFIG", _APT_FILE),
)
"""Variables by which tools learn of another bundle; set only where the step has none."""


def write_bundle(directory: str, spec: Mapping[str, object]) -> None:
    """Write `config.json` into `directory`, which exists.

    Raises:
        LaminaError: kind INVALID if an argument, variable or path is not UTF-8, which JSON needs
            (runtimes would each replace the bytes with something else).
    """
    text = dumps(spec, ensure_ascii=False)
    try:
        text.encode()
    except UnicodeEncodeError as error:
        around = text[max(error.start - 20, 0) : error.start]
        raise LaminaError(
            f"a command, variable or path is not valid UTF-8 after {around!r}", kind=Kind.INVALID
        ) from error
    write_text(f"{directory}/config.json", text)


def write_text(path: str, text: str) -> None:
    """Write a file of mode 0644 whatever the umask (the container's user must read it)."""
    with open(path, "w", encoding="utf-8", errors="surrogateescape") as file:
        os.fchmod(file.fileno(), 0o644)
        file.write(text)


def write_etc_files(
    directory: str, process: ProcessSpec, *, host_etc: str = "/etc", for_step: bool = False
) -> tuple[Mount, ...]:
    """Write hosts, hostname and resolv.conf into `directory`; the mounts that show them.

    What the container writes to them is lost. A RUN step keeps the image's /etc/hostname
    (`for_step`), as with BuildKit: a Dockerfile may want to write it.

    Raises:
        LaminaError: kind USAGE for a bad extra host or DNS server.
    """
    texts = etc_texts(process, host_etc=host_etc)
    if for_step:
        del texts["hostname"]
    for name, text in texts.items():
        write_text(f"{directory}/{name}", text)
    return etc_mounts(directory, texts, read_only=process.read_only)


def etc_texts(process: ProcessSpec, *, host_etc: str = "/etc") -> dict[str, str]:
    """The files of a container's /etc by their names; they depend on the host's resolv.conf.

    Raises LaminaError as `write_etc_files`.
    """
    hostname = process.hostname or DEFAULT_HOSTNAME
    resolver = resolv_conf(
        _read(f"{host_etc}/resolv.conf"),
        systemd=_read(SYSTEMD_RESOLV_CONF),
        dns=process.dns,
        search=process.dns_search,
        options=process.dns_options,
        host_network=process.host_network,
    )
    hosts = hosts_file(
        hostname=hostname,
        address=process.address,
        extra_hosts=process.extra_hosts,
        host_gateway=process.host_gateway,
        more_addresses=process.more_addresses,
        domainname=process.domainname,
    )
    return {"hosts": hosts, "resolv.conf": resolver.text, "hostname": hostname + "\n"}


def etc_mounts(directory: str, names: Iterable[str], *, read_only: bool) -> tuple[Mount, ...]:
    """The mounts that show files of `directory` in /etc."""
    options = ("ro",) if read_only else ()
    return tuple(
        Mount(f"/etc/{name}", "bind", f"{directory}/{name}", ("rbind", "rprivate", *options))
        for name in names
    )


def write_ca_files(directory: str, ca_bundle: str) -> Mount:
    """Copy the CA bundle beside an apt configuration that names it; the mount that shows both.

    Raises:
        OSError: the bundle cannot be read.
    """
    top = f"{directory}/ca"
    os.mkdir(top, 0o755)
    os.chmod(top, 0o755)  # noqa: S103  # whatever the umask, the container's user reads it
    with open(ca_bundle, encoding="utf-8", errors="surrogateescape") as file:
        write_text(f"{top}/ca-bundle.crt", file.read())
    write_text(f"{top}/apt.conf", _APT_CONF)
    return Mount(CA_DIRECTORY, "bind", top, ("rbind", "ro", "nosuid", "nodev", "noexec"))


def _read(path: str) -> str:
    try:
        with open(path, encoding="utf-8", errors="surrogateescape") as file:
            return file.read(1 << 20)
    except OSError:
        return ""
