# SPDX-License-Identifier: Apache-2.0
"""The context of `build -` and `build URL`, there until the block ends."""

from __future__ import annotations

import os
from contextlib import contextmanager

from lamina.app.streamedcontext import piped_context, remote_context
from lamina.app.wiring import remote_sources
from lamina.errors import Kind, LaminaError
from lamina.start.record import replace

TYPE_CHECKING = False
if TYPE_CHECKING:
    import argparse
    from collections.abc import Iterator, Mapping

    from lamina.app.buildcontext import BuildContext
    from lamina.cli.context import Context


@contextmanager
def streamed_sources(
    args: argparse.Namespace, context: Context, build_args: Mapping[str, str]
) -> Iterator[BuildContext]:
    """What standard input or the URL holds. Raises as `app.streamedcontext`, and USAGE."""
    if args.path == "-":
        if args.file == "-":
            raise LaminaError(
                "context and Dockerfile cannot both come from standard input", kind=Kind.USAGE
            )
        context.store()  # makes the root
        scratch = os.path.join(context.root, "tmp")
        with piped_context(context.stdin.buffer, args.file, scratch=scratch) as found:
            yield found
        return
    store = context.store()
    settings = context.settings()
    if args.ca_bundle:
        settings = replace(settings, ca_bundle=context.path(args.ca_bundle))
    keep = build_args.get("BUILDKIT_CONTEXT_KEEP_GIT_DIR", "")
    with remote_context(
        args.path,
        args.file,
        remote=remote_sources(store, settings, env=context.env, clock=context.clock),
        store=store,
        cancel=context.token(),
        stdin=context.stdin.buffer if args.file == "-" else None,
        keep_git_dir=keep.lower() in {"1", "t", "true"},
    ) as found:
        yield found
