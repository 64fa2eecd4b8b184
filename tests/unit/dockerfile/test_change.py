# SPDX-License-Identifier: Apache-2.0
"""`--change` means what the instruction means in a Dockerfile."""

from __future__ import annotations

import pytest

from lamina.dockerfile.change import apply_changes
from lamina.errors import Kind, LaminaError
from lamina.spec.config import RunConfig


def test_every_allowed_instruction() -> None:
    config = apply_changes(
        RunConfig(env=(("A", "1"),), on_build=("RUN true",)),
        [
            'CMD ["a", "b"]',
            "ENTRYPOINT run it",
            "ENV B=$A C=3",
            "EXPOSE 80 53/udp",
            "LABEL k=v",
            "ONBUILD COPY . /x",
            "STOPSIGNAL SIGINT",
            "USER nobody",
            "VOLUME /data",
            "WORKDIR /srv",
            "WORKDIR app",
            "HEALTHCHECK --retries=2 CMD true",
        ],
    )
    assert config.entrypoint == ("/bin/sh", "-c", "run it")
    assert config.env == (("A", "1"), ("B", "1"), ("C", "3"))
    assert config.exposed_ports == ("53/udp", "80/tcp")
    assert config.labels == (("k", "v"),)
    assert config.on_build == ("RUN true", "COPY . /x")
    assert (config.stop_signal, config.user, config.volumes) == ("SIGINT", "nobody", ("/data",))
    assert config.working_dir == "/srv/app"
    assert config.healthcheck is not None
    assert config.healthcheck.retries == 2


def test_no_variable_is_added_that_was_not_asked_for() -> None:
    assert apply_changes(RunConfig(), ["USER x"]) == RunConfig(user="x")
    assert apply_changes(RunConfig(), ["ENV PATH=/x"]) == RunConfig(env=(("PATH", "/x"),))


@pytest.mark.parametrize(
    "change",
    ["RUN true", "COPY a b", "FROM x", "nonsense", "", "# comment", "ENV", "EXPOSE x", "ARG a=1"],
)
def test_anything_else_is_one_error_that_names_the_change(change: str) -> None:
    with pytest.raises(LaminaError) as caught:
        apply_changes(RunConfig(), [change])
    assert caught.value.kind is Kind.INVALID
    assert repr(change) in str(caught.value)
