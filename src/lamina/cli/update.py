# SPDX-License-Identifier: Apache-2.0
"""Change the limits of containers, or their restart policy."""

from __future__ import annotations

from lamina.app.updating import Changes, update, update_restart_policy
from lamina.cli.each import each
from lamina.cli.extra_flags import limits_of, parse_swap
from lamina.cli.run_flags import LIMITS, parse_cpus, parse_integer, parse_memory
from lamina.errors import Kind, LaminaError

TYPE_CHECKING = False
if TYPE_CHECKING:
    import argparse

    from lamina.app.containers import Container
    from lamina.cli.arguments import Parser
    from lamina.cli.context import Context

USAGE = "[OPTIONS] CONTAINER [CONTAINER...]"
STATUS_OF_FAILURE = 1
_ONLY_RUN = frozenset(("--memory-swappiness", "--oom-score-adj"))  # Docker's update has not these


def configure(parser: Parser) -> None:
    for names, help in LIMITS:
        if names[-1] not in _ONLY_RUN:
            parser.add_argument(*names, default="", help=help)
    parser.add_argument("--pids-limit", default="", help="limit of processes, -1 for none")
    parser.add_argument("--restart", default="", help="restart policy, for when it ends")
    parser.refuse("--kernel-memory", why="Linux has no such limit any more: use --memory")
    parser.refuse("--cpu-rt-period", "--cpu-rt-runtime", why="use --cpus")
    parser.add_argument("containers", nargs="+", metavar="CONTAINER")


def run(args: argparse.Namespace, context: Context) -> int:
    if not any(value for name, value in vars(args).items() if name != "containers"):
        raise LaminaError(
            "You must provide one or more flags when using this command.", kind=Kind.USAGE
        )
    for name in ("memory_swappiness", "oom_score_adj", "oom_kill_disable"):
        setattr(args, name, "")
    memory = parse_memory(args.memory)
    changes = Changes(
        memory=memory,
        memory_swap=parse_swap(args.memory_swap, memory=memory or -1) if args.memory_swap else 0,
        cpus=parse_cpus(args.cpus),
        cpu_shares=parse_integer(args.cpu_shares, "--cpu-shares"),
        cpuset_cpus=args.cpuset_cpus,
        cpuset_mems=args.cpuset_mems,
        pids_limit=parse_integer(args.pids_limit, "--pids-limit") if args.pids_limit else 0,
        extras=limits_of(args),
    )
    settings = context.settings()

    def change(container: Container) -> None:
        if args.restart:
            update_restart_policy(context.store(), container, args.restart)
        if changes != Changes():
            update(context.store(), container, changes, runtime=settings.runtime)

    return each(args.containers, context, change)
