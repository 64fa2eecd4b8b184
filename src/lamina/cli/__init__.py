# SPDX-License-Identifier: Apache-2.0
"""The command line: one module per command, the only room that reads env, argv, cwd and tty.

`main` finds the command (`COMMANDS`) and imports its module alone; the module's `configure(parser)`
declares Docker's flags and `run(args, context)` calls one use case of `app/` and prints. `ui/`
renders the event stream; `format` renders rows; `arguments` is Docker's flag syntax, `helptext`
its help. No command imports another: what they share is in modules of its own, named for what they
give.
"""
