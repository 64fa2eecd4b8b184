# SPDX-License-Identifier: Apache-2.0
"""Networks of containers: the bridge with its addresses and rules, published ports.

Start with `attachment.Network` (attach, publish, reap). `bridge` is the kernel's side of it, over
`links` and `netlink`; `pool` lends namespaces to steps of a build; `addresses` is arithmetic,
`claims` what a holder may have; `firewall` edits packet rules, `flows` ends connections of a rule
that went; `publish` reads `-p`, `ports` binds, `forward` copies bytes where a rule cannot.

Networks of users: `networks` are their documents, `subnets` what a new one gets, `plan` what it is to be
on the host; `endpoints` says which a container is in, `connections` puts it there; `resolver` answers
its questions, from `names`, in the form of `dnswire`. docs/networking.md is for users.
"""
