# SPDX-License-Identifier: Apache-2.0
"""Docker's commands that lamina has not: each is refused by its own name, so that no command with
a similar one is proposed in its place.
"""

from __future__ import annotations

from lamina.errors import Kind, LaminaError

_ONE_HOST = "lamina runs containers on this host only"
_NO_BUILDERS = "lamina builds in the command itself: there are no builders to choose from"

# A command, or a group and a verb, and what there is instead.
INSTEAD = {
    # without a group
    "search": "'lamina tags REPOSITORY' lists the tags of a repository",
    # management commands
    "checkpoint": "",
    "context": "there is no daemon to talk to: --root and LAMINA_ROOT choose a store",
    "plugin": "",
    "trust": "a name with a digest, NAME@sha256:..., is checked against it",
    "config": _ONE_HOST,
    "node": _ONE_HOST,
    "secret": "'lamina build --secret' gives a secret to RUN steps",
    "service": _ONE_HOST,
    "stack": _ONE_HOST,
    "swarm": _ONE_HOST,
    # plugins that come with Docker
    "compose": "'lamina bake' builds what a compose file describes",
    "debug": "'lamina enter BUILD:STEP' opens a shell in a step of a build",
    "desktop": "",
    "extension": "",
    "init": "",
    "mcp": "",
    "model": "",
    "sbom": "",
    "scan": "",
    "scout": "",
    # verbs of groups that lamina has
    "buildx create": _NO_BUILDERS,
    "buildx dap": "",
    "buildx debug": "'lamina build --on-fail=shell' opens a shell in the step that failed",
    "buildx dial-stdio": _NO_BUILDERS,
    "buildx du": "'lamina system df -v' shows the build cache",
    "buildx imagetools": "'lamina manifest' and 'lamina copy' do its work",
    "buildx inspect": _NO_BUILDERS,
    "buildx ls": _NO_BUILDERS,
    "buildx rm": _NO_BUILDERS,
    "buildx stop": _NO_BUILDERS,
    "buildx use": _NO_BUILDERS,
    "buildx version": "'lamina version' prints lamina's",
    "volume update": _ONE_HOST,
    "system dial-stdio": "there is no daemon to talk to",
}


def refusal(group: str, name: str) -> LaminaError | None:
    """The error for `lamina GROUP NAME` (or NAME, without a group), if Docker has that command."""
    words = f"{group} {name}".lstrip()
    key = words
    if group == "builder":  # Docker's other name of its plugin
        key = f"buildx {name}"
    if key not in INSTEAD:
        return None
    return LaminaError(f"lamina has no `{words}`", kind=Kind.UNSUPPORTED, hint=INSTEAD[key])
