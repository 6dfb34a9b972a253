"""The contract of leases: who generates the answer of a key, and what all others hear of it.

A lease makes one flight, in one process, the one that generates for a key. What the flight says
goes to a stream of its own as numbered pieces, so that other processes hear all of it, from the
first. Leases must not know what a piece says.

Invariants
1. Of those who ask for a free key's lease at once, one gets it. It is free again when it was given
   back (`end`) or `lease_s` after its holder was last heard of.
2. Who insists gets a lease of its own. The flight before it goes on, for those who follow it.
3. Tokens of a key only grow: microseconds of the store's clock, or more where two would be equal.
   A store refuses the entry of a lease after which another one was given (`Store.put`).
4. `acquire` returns what is under the key at the moment when it gives a lease: an entry stored
   before its lease was given back cannot be missed by who gets the next one.
5. The pieces of a flight are numbered without gaps from `FIRST_PIECE`; repeating a call that may
   have been made changes nothing. A dead holder's pieces end with its lease, those of a flight that
   ended `LINGER_S` later.
6. A follower is known for `lease_s` after it was last heard of.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

LEASE_S = 3.0
"""What a killed holder costs at most: `lease_s` of every implementation, unless a test says so."""
LINGER_S = 10.0
"""How long the pieces of a flight that has ended can still be read."""
FIRST_PIECE = 2
"""The number of the first piece."""
MAX_FLIGHT_S = 3600.0
"""How long a token is remembered: by then no answer of an older lease is waiting to be stored."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Lease:
    """A lease that was given: to the asker if `flight` is its own, else `about` says to whom.

    `entry` is what is under the key, where the lease was the asker's and it did not insist.
    """

    key: str
    flight: str
    token: int
    about: bytes
    entry: bytes | None = None


class Leases(Protocol):
    """Leases by key. Safe to call from many tasks of one event loop.

    Every method raises `origin.stores.contract.StoreError` where the store cannot be asked; the
    call may have been made then.
    """

    async def acquire(self, key: str, flight: str, about: bytes, *, insist: bool) -> Lease:
        """Take the lease of `key` for `flight`, a name never used before, or tell who has it."""
        ...

    async def say(self, lease: Lease, number: int, piece: bytes) -> Sequence[bytes] | None:
        """Add piece `number`, an empty one to say nothing, and hold the lease for `lease_s` more.

        What those who follow wish, one a follower; None where the lease has run out.
        """
        ...

    async def end(self, lease: Lease, number: int, piece: bytes) -> None:
        """Add the last piece, and give the lease back. Fine for a lease that was never given."""
        ...

    async def stop(self, lease: Lease) -> bool:
        """Give the lease back if nobody follows; whether nobody does.

        Nothing of the flight can be read or followed then.
        """
        ...

    async def follow(self, lease: Lease, follower: str, wishes: bytes) -> float | None:
        """Be known as a follower who wishes this.

        In how many seconds the flight may have died, if nothing is heard of its holder; None for
        one that has.
        """
        ...

    async def leave(self, lease: Lease, follower: str) -> None:
        """Be known as a follower no more."""
        ...

    async def read(self, lease: Lease, after: int, *, wait_s: float) -> Sequence[tuple[int, bytes]]:
        """Return the pieces behind number `after`. Waits for one for `wait_s`; then there are none.

        Not all at once, where they are many.
        """
        ...

    async def close(self) -> None:
        """Free connections. Closing twice is fine; closed leases are not used again."""
        ...
