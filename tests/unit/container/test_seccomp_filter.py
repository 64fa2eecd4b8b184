# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

from typing import Any

import pytest

from lamina.container.capabilities import DEFAULT_CAPABILITIES
from lamina.container.profile import default_profile
from lamina.container.seccomp import InvalidProfile, container_seccomp
from lamina.errors import LaminaError


def filtered(
    profile: dict[str, Any] | None = None,
    *,
    architecture: str = "amd64",
    capabilities: tuple[str, ...] = DEFAULT_CAPABILITIES,
    kernel: tuple[int, int] = (6, 1),
) -> Any:
    return container_seccomp(
        default_profile() if profile is None else profile,
        architecture=architecture,
        capabilities=capabilities,
        kernel=kernel,
    )


def allowed(document: Any) -> set[str]:
    return {
        name
        for rule in document["syscalls"]
        if rule["action"] == "SCMP_ACT_ALLOW" and "args" not in rule
        for name in rule["names"]
    }


def test_default_refuses_with_eperm_and_knows_one_architecture() -> None:
    found = filtered()
    assert found["defaultAction"] == "SCMP_ACT_ERRNO"
    assert found["defaultErrnoRet"] == 1
    assert found["architectures"] == ["SCMP_ARCH_X86_64"]


@pytest.mark.parametrize(
    "name",
    [
        "mount",
        "umount2",
        "unshare",
        "setns",
        "keyctl",
        "add_key",
        "bpf",
        "reboot",
        "kexec_load",
        "init_module",
    ],
)
def test_dangerous_calls_are_not_allowed_by_default(name: str) -> None:
    assert name not in allowed(filtered())


def test_ordinary_calls_are_allowed() -> None:
    assert {"read", "openat2", "execve", "chroot", "ptrace", "arch_prctl"} <= allowed(filtered())


def test_clone3_answers_enosys_so_that_libraries_fall_back() -> None:
    rules = [rule for rule in filtered()["syscalls"] if "clone3" in rule["names"]]
    assert rules == [{"names": ["clone3"], "action": "SCMP_ACT_ERRNO", "errnoRet": 38}]


def test_clone_is_allowed_without_namespace_flags_only() -> None:
    rules = [rule for rule in filtered()["syscalls"] if rule["names"] == ["clone"]]
    assert [rule["args"] for rule in rules] == [
        [{"index": 0, "value": 0x7E020000, "op": "SCMP_CMP_MASKED_EQ"}]
    ]
    s390x = [r for r in filtered(architecture="s390x")["syscalls"] if r["names"] == ["clone"]]
    assert s390x[0]["args"][0]["index"] == 1


def test_kernel_crypto_and_vsock_sockets_are_not_allowed() -> None:
    rules = [rule["args"][0] for rule in filtered()["syscalls"] if rule["names"] == ["socket"]]
    exact = {rule["value"] for rule in rules if rule["op"] == "SCMP_CMP_EQ"}
    below = {rule["value"] for rule in rules if rule["op"] == "SCMP_CMP_LT"}
    assert below == {12}
    assert not exact & {38, 40}  # AF_ALG, AF_VSOCK


def test_capability_opens_its_calls() -> None:
    found = filtered(capabilities=(*DEFAULT_CAPABILITIES, "CAP_SYS_ADMIN"))
    assert {"mount", "unshare", "clone", "clone3"} <= allowed(found)


def test_rules_of_other_architectures_are_left_out() -> None:
    assert "arch_prctl" not in allowed(filtered(architecture="arm64"))
    assert "cacheflush" in allowed(filtered(architecture="arm64"))


def test_old_kernel_has_no_ptrace() -> None:
    assert "ptrace" not in allowed(filtered(kernel=(4, 7)))


def test_unknown_architecture_is_unsupported() -> None:
    with pytest.raises(LaminaError, match="vax"):
        filtered(architecture="vax")


@pytest.mark.parametrize(
    "profile",
    [
        {"syscalls": []},
        {"defaultAction": "x", "syscalls": [{"names": ["a"]}]},
        {"defaultAction": "x", "syscalls": [{"names": [1], "action": "y"}]},
        {"defaultAction": "x", "syscalls": ["a"]},
        {"defaultAction": "x", "syscalls": 7},
        {"defaultAction": "x", "syscalls": [{"names": ["a"], "action": "y", "args": [{}]}]},
        {"defaultAction": "x", "syscalls": [{"names": ["a"], "action": "y", "includes": 3}]},
        {
            "defaultAction": "x",
            "syscalls": [{"names": ["a"], "action": "y", "includes": {"minKernel": "a.b"}}],
        },
    ],
)
def test_malformed_profile_is_invalid(profile: dict[str, Any]) -> None:
    with pytest.raises(InvalidProfile):
        filtered(profile)


def test_old_form_with_one_name_is_read() -> None:
    profile = {"defaultAction": "a", "syscalls": [{"name": "read", "action": "SCMP_ACT_ALLOW"}]}
    assert allowed(filtered(profile)) == {"read"}


def test_image_of_the_32_bit_sister_architecture_is_let_through() -> None:
    def architectures(host: str, image: str) -> object:
        found = container_seccomp(
            default_profile(),
            architecture=host,
            capabilities=(),
            kernel=(6, 1),
            image_architecture=image,
        )
        return found["architectures"]

    assert architectures("amd64", "386") == ["SCMP_ARCH_X86_64", "SCMP_ARCH_X86"]
    assert architectures("arm64", "arm") == ["SCMP_ARCH_AARCH64", "SCMP_ARCH_ARM"]
    assert architectures("amd64", "amd64") == ["SCMP_ARCH_X86_64"]
    assert architectures("amd64", "arm64") == ["SCMP_ARCH_X86_64"]
