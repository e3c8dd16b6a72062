"""How a command reaches registries: what its flags say beside the files of the caller."""

from __future__ import annotations

from sysbox.base.errors import SpecError
from sysbox.base.frozen import Frozen
from sysbox.image.registry.client import Repository
from sysbox.image.registry.credentials import Chain, Credential, Given
from sysbox.image.registry.paced import Patience

TYPE_CHECKING = False
if TYPE_CHECKING:
    from sysbox.image.registry.endpoint import Endpoint


class Access(Frozen):
    """The flags that `pull`, `push`, `login` and `manifest inspect` have in common."""

    authfile: str = ""
    creds: str = ""  # USER:PASSWORD, instead of those that are kept
    insecure: bool = False  # accept plain HTTP and certificates that nobody vouches for
    certificates: str = ""  # a directory, instead of the host's in certs.d
    retries: int = -1  # of a request that failed for now; -1: as many as usual

    def repository(self, endpoint: Endpoint, chain: Chain | None = None) -> Repository:
        """A repository that is reached so; `chain` instead of the credentials. Raises SpecError."""
        place = endpoint.replace(
            insecure=endpoint.insecure or self.insecure, certificates=self.certificates
        )
        patience = Patience(attempts=self.retries + 1) if self.retries >= 0 else None
        return Repository(place, chain or self._chain(endpoint), patience)

    def _chain(self, endpoint: Endpoint) -> Chain:
        """Where the credentials come from: `creds` are for the registry, not for its mirrors."""
        if self.creds and not endpoint.is_mirror:
            return Given(_credential(self.creds), self.authfile)
        return Chain(self.authfile)


def _credential(text: str) -> Credential:
    user, colon, password = text.partition(":")
    if not (user and colon and password):
        raise SpecError("--creds: must be USER:PASSWORD", hint="`sysbox login` asks for them")
    return Credential(username=user, password=password)
