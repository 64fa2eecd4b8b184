# SPDX-License-Identifier: Apache-2.0
"""Ids and names of containers. Randomness comes as an argument."""

from __future__ import annotations

from lamina.errors import Kind, LaminaError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

_MARKS = str.maketrans("", "", "_.-")  # beside letters and digits; moby, daemon/names/names.go

_ADJECTIVE_WORDS = (
    "amber ample apt avid bold brave brief bright brisk calm candid clear clever coral cosy crisp "
    "curious daring deft eager early earnest easy fair fond frank fresh gentle glad golden grand "
    "happy hardy honest humble ideal jolly keen kind lively loyal lucid lucky mellow merry mild "
    "modest neat nimble noble novel patient placid plain proud quick quiet rapid ready royal "
    "serene sharp silent simple sincere smooth solid steady still sturdy subtle sunny sure swift "
    "tender tidy trusty upbeat valid vivid warm wise witty zesty"
)
_SURNAME_WORDS = (
    "abel ampere avogadro babbage bell bernoulli bohr boole bose carson cauchy cavendish celsius "
    "church cori curie dalton darwin dijkstra dirac euclid euler faraday fermat fermi feynman "
    "fibonacci fourier franklin galileo galois gauss germain goedel goodall gray hahn hamilton "
    "hamming hawking heisenberg herschel hertz hilbert hodgkin hopper hubble hypatia joule kelvin "
    "kepler khayyam knuth kovalevskaya lamarr laplace leibniz liskov lorentz lovelace maxwell "
    "mcclintock meitner mendel mirzakhani napier newton noether ohm pascal pasteur pauli perlman "
    "planck poincare ramanujan riemann rubin shannon somerville tesla turing volta wiles wozniak "
    "yalow yonath zuse"
)
_ADJECTIVES, _SURNAMES = _ADJECTIVE_WORDS.split(), _SURNAME_WORDS.split()


def new_id(random: Callable[[int], bytes]) -> str:
    """64 hex digits. `random(n)` gives n random bytes."""
    return random(32).hex()


def new_name(random: Callable[[int], bytes]) -> str:
    """A name that a person can say: `brave_hopper`."""
    first, second = random(2)
    # the bias of the modulo does not matter: a taken name is drawn again
    return f"{_ADJECTIVES[first % len(_ADJECTIVES)]}_{_SURNAMES[second % len(_SURNAMES)]}"


def check_name(name: str) -> str:
    """`name` if it can be a container's (a leading slash is dropped). Raises kind USAGE."""
    bare = name.removeprefix("/")
    letters = bare.translate(_MARKS)
    if not (len(bare) > 1 and bare[0].isalnum() and letters.isalnum() and letters.isascii()):
        raise LaminaError(
            f"Invalid container name ({name}), only [a-zA-Z0-9][a-zA-Z0-9_.-] are allowed",
            kind=Kind.USAGE,
        )
    return bare
