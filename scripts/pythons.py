# SPDX-License-Identifier: Apache-2.0
"""Makes an interpreter of another Python version, with what the fast tests need, from packages.

    .venv/bin/python scripts/pythons.py 3.12 .pythons/3.12

No registry that a test machine reaches has CPython 3.12 and 3.14 as such, but two of PyPI's packages
carry all of it: freeze-core (of cx_Freeze) the interpreter itself, linked into a program that starts
frozen applications, with all extension modules and their libraries; componentize-py (of the Bytecode
Alliance) the standard library as it is in CPython's source, for another processor. 3.13's library is
Debian's. What is downloaded is known by its hash or signed. docs/adr/0007-pythons-of-ci.md says more.
"""

from __future__ import annotations

import glob
import io
import os
import platform
import shutil
import struct
import subprocess
import sys
import tarfile
import tempfile
import zipfile

from backports import zstd

from lamina.bootstrap.aptsources import sources_for
from lamina.bootstrap.debian import read_host_sources

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
# version -> hash of freeze-core's wheel for it, and where the library comes from: of a release of
# componentize-py, or a suite of Debian
CORE = "freeze-core==0.8.1"
VERSIONS = {
    "3.12": (
        "4cf1315685926e298870d1b1504e2b9e676e047b6084d02c3d1e9e1ec11c3d0a",
        (
            "componentize-py==0.16.0",
            "95644bf551b8e93f56049a623307bbc1d982ebfa3ebb1ef45b3e631bfd65b798",
        ),
    ),
    "3.13": (
        "3e0b5575db49fa6437d426f32cfaada9ffe69e2eba69f66a62b5d665d51828c0",
        "trixie",
    ),
    "3.14": (
        "2500ef546af0c26e30cc8630be353fa02c9ff46d009b76d6d15e79288140d7e6",
        (
            "componentize-py==0.25.1",
            "8623cd8cab8453cb0cd8bf03f3c7103420d06f2f3d360186a280a70a1ca5e89f",
        ),
    ),
}
# what componentize-py adds to the library, and what is true of the processor it is for
FOREIGN = (
    "site-packages",
    "config-3.*",
    "*wasi*",
    "build-details.json",
    "componentize_py*",
    "poll_loop.py",
)
# of a symbol in an ELF file (elf(5)): name, value, section; of a section: kind, address, offset, size, link
SYMBOL, SECTION = struct.Struct("<I2xHQQ"), struct.Struct("<4xI8xQQQI20x")
DYNSYM = 11


def main() -> None:
    version, place = sys.argv[1], os.path.abspath(sys.argv[2])
    if platform.machine() != "x86_64" or sys.platform != "linux":
        sys.exit(
            "pythons: the packages are for Linux on x86_64; `make check-pythons PYTHONS=` runs none"
        )
    core_hash, source = VERSIONS[version]
    shutil.rmtree(place, ignore_errors=True)
    library = f"{place}/lib/python{version}"
    with tempfile.TemporaryDirectory() as work:
        if isinstance(source, str):
            library_of_debian(source, version, work, library)
        else:
            library_of_wheel(download(*source, version=version, to=work), library)
        core = download(CORE, core_hash, version=version, to=work)
        lay_out(core, place, library, version)
    subprocess.run(
        [f"{place}/bin/python{version}", "-m", "venv", "--without-pip", f"{place}/env"], check=True
    )
    # PYTHONDONTWRITEBYTECODE may be set: compile now, or every start compiles again
    compiled = [f"{place}/bin/python{version}", "-m", "compileall", "-q", "-j", "0"]
    subprocess.run(
        [*compiled, "-x", "/(test|idlelib|lib2to3|tkinter|turtledemo)/", library], check=True
    )
    python = f"{place}/env/bin/python"
    install = [sys.executable, "-m", "pip", "--python", python, "install", "-q"]
    locked = ["--require-hashes", "-r", f"{ROOT}/requirements-test.lock"]
    # pip's own code is older than some of these Pythons, which warn of it
    quiet = {**os.environ, "PYTHONWARNINGS": "ignore", "PIP_DISABLE_PIP_VERSION_CHECK": "1"}
    subprocess.run([*install, *locked], env=quiet, check=True)
    with open(f"{place}/env/lib/python{version}/site-packages/lamina.pth", "w") as file:
        file.write(f"{ROOT}/src\n")
    with open(f"{ROOT}/bin/lamina") as script, open(f"{place}/env/bin/lamina", "w") as file:
        file.write(script.read().replace("#!python", f"#!{python}", 1))  # as pip does
        os.fchmod(file.fileno(), 0o755)
    subprocess.run([python, "-VV"], check=True)


def download(requirement: str, digest: str, *, version: str, to: str) -> str:
    """The path of the package's wheel for the version, whose hash is `digest`."""
    place = tempfile.mkdtemp(dir=to)
    locked = f"{place}/locked.txt"
    with open(locked, "w") as file:
        file.write(f"{requirement} --hash=sha256:{digest}\n")
    subprocess.run(
        [
            *(sys.executable, "-m", "pip", "download", "-q", "--disable-pip-version-check"),
            *("--no-deps", "--only-binary", ":all:", "--python-version", version),
            *("--platform", "manylinux2014_x86_64", "--platform", "manylinux_2_28_x86_64"),
            *("--require-hashes", "-r", locked, "-d", place),
        ],
        check=True,
    )
    return glob.glob(f"{place}/*.whl")[0]


def library_of_wheel(path: str, library: str) -> None:
    """Extract the standard library: a tar, compressed with zstd, in the package's extension module."""
    with zipfile.ZipFile(path) as wheel:
        (name,) = (name for name in wheel.namelist() if name.endswith(".abi3.so"))
        blob = wheel.read(name)
    start = -1
    while (start := blob.find(b"\x28\xb5\x2f\xfd", start + 1)) >= 0:
        try:
            content = zstd.ZstdDecompressor().decompress(blob[start:])
        except zstd.ZstdError:
            continue  # the number stands there by chance
        if content[257:262] != b"ustar":
            continue
        with tarfile.open(fileobj=io.BytesIO(content)) as archive:
            if "argparse.py" in archive.getnames():
                archive.extractall(library, filter="data")
                break
    else:
        sys.exit(f"pythons: no standard library in {path}")
    for pattern in FOREIGN:
        for found in glob.glob(f"{library}/{pattern}"):
            shutil.rmtree(found) if os.path.isdir(found) else os.unlink(found)
    # 3.12.1's lacks a decorator that importlib of 3.12.2 and later, which is in the core, counts on
    metadata = f"{library}/importlib/metadata/__init__.py"
    with open(metadata) as file:
        text = file.read()
    with open(metadata, "w") as file:
        file.write(
            text.replace(
                "\n\n    def invalidate_caches(cls)",
                "\n\n    @classmethod\n    def invalidate_caches(cls)",
            )
        )


def library_of_debian(suite: str, version: str, work: str, library: str) -> None:
    """Extract the standard library of a suite's packages, from the mirror this host uses."""
    sources = sources_for(read_host_sources(), distribution="debian", suite=suite)
    if not sources:
        sys.exit("pythons: this host has no Debian mirror in its apt sources")
    subprocess.run(
        [
            *("mmdebstrap", "--quiet", "--mode=root", "--variant=extract"),
            *(f"--include=libpython{version}-stdlib", suite, f"{work}/debian"),
            *(
                f"deb {source.uri} {source.suite} {' '.join(source.components)}"
                for source in sources
            ),
        ],
        check=True,
    )
    shutil.copytree(
        f"{work}/debian/usr/lib/python{version}",
        library,
        ignore=shutil.ignore_patterns(
            "lib-dynload", "_sysconfigdata*", "sitecustomize.py", "EXTERNALLY-MANAGED"
        ),
    )


def lay_out(core: str, place: str, library: str, version: str) -> None:
    """Put the interpreter and its extension modules where CPython looks for them."""
    os.makedirs(f"{place}/bin")
    os.makedirs(f"{library}/lib-dynload")
    tag = f"cpython-{version.replace('.', '')}-x86_64-linux-gnu"
    with zipfile.ZipFile(core) as wheel:
        for name in wheel.namelist():
            if name.endswith("/"):
                continue
            if name.startswith(
                "freeze_core.libs/"
            ):  # the extension modules look two directories up
                wheel.extract(name, f"{place}/lib")
            elif name.startswith("freeze_core/lib/"):
                with open(f"{library}/lib-dynload/{os.path.basename(name)}", "wb") as file:
                    file.write(wheel.read(name))
        program = bytearray(wheel.read(f"freeze_core/bases/console-{tag}"))
    begin_with(program, b"Py_BytesMain")
    with open(f"{place}/bin/python{version}", "wb") as file:
        file.write(program)
        os.fchmod(file.fileno(), 0o755)
    with open(f"{library}/_sysconfigdata__linux_x86_64-linux-gnu.py", "w") as file:
        known = {"SOABI": tag, "EXT_SUFFIX": f".{tag}.so", "Py_GIL_DISABLED": 0, "Py_DEBUG": 0}
        file.write(f"build_time_vars = {known}\n")


def begin_with(program: bytearray, function: bytes) -> None:
    """Let `main` jump to a function of the same signature: to what `main` of python itself calls."""
    table, count = (
        struct.unpack_from("<Q", program, 0x28)[0],
        struct.unpack_from("<H", program, 0x3C)[0],
    )
    sections = [
        SECTION.unpack_from(program, table + number * SECTION.size) for number in range(count)
    ]
    _, _, start, size, link = next(each for each in sections if each[0] == DYNSYM)
    names = sections[link][2]
    places = {}
    for offset in range(start, start + size, SYMBOL.size):
        name, section, address, _ = SYMBOL.unpack_from(program, offset)
        text = bytes(program[names + name : program.index(0, names + name)])
        places[text] = (
            address,
            address - sections[section][1] + sections[section][2] if section < count else 0,
        )
    (origin, offset), (target, _) = places[b"main"], places[function]
    program[offset : offset + 5] = b"\xe9" + struct.pack("<i", target - (origin + 5))


if __name__ == "__main__":
    main()
