"""Keeps a certificate for each workload, and replaces it long before it expires."""

from collections.abc import Iterable, Mapping
from datetime import datetime, timedelta

from mesh.pki.authority import Authority, Clock, utc_now
from mesh.pki.certificates import Identity

LIFETIME = timedelta(hours=1)


class Rotation:
    """The current identities. Private keys are in memory alone, and leave it only to the workload's own proxy."""

    def __init__(
        self,
        authority: Authority,
        spiffe_ids: Iterable[str],
        *,
        lifetime: timedelta = LIFETIME,
        clock: Clock = utc_now,
    ) -> None:
        """`lifetime` is that of a certificate, of which a third may pass before it is replaced."""
        self._authority = authority
        self._lifetime = lifetime
        self._clock = clock
        self._identities = {spiffe_id: authority.issue(spiffe_id, lifetime) for spiffe_id in spiffe_ids}

    @property
    def identities(self) -> Mapping[str, Identity]:
        """The current identity of each SPIFFE id."""
        return self._identities

    @property
    def trust_bundle(self) -> bytes:
        """The roots that peers accept, as PEM."""
        return self._authority.trust_bundle

    def rotate(self) -> set[str]:
        """Replace what is due, and return its SPIFFE ids. The trust bundle may change too."""
        self._authority.renew()
        now = self._clock()
        due = {name for name, identity in self._identities.items() if now >= self._due(identity)}
        for name in due:
            self._identities[name] = self._authority.issue(name, self._lifetime)
        return due

    def seconds_until_due(self) -> float:
        """Return the seconds until the next call of `rotate` has something to do; 0 when it has now."""
        due = min((self._due(identity) for identity in self._identities.values()), default=self._clock())
        return max(0.0, (due - self._clock()).total_seconds())

    def _due(self, identity: Identity) -> datetime:
        # Two thirds are left for a control plane that is away, and for connections that were opened before.
        return identity.not_after - min(self._lifetime, identity.not_after - identity.not_before) * 2 / 3
