"""The requests to one registry: its scheme is found out, a challenge is met once."""

from __future__ import annotations

from sysbox.base.errors import Unreachable
from sysbox.image.registry import url as urls
from sysbox.image.registry.auth import Authorizer, denied
from sysbox.image.registry.connections import Cut, NotTls
from sysbox.image.registry.transport import Answer, Request, Transport

TYPE_CHECKING = False
if TYPE_CHECKING:
    from sysbox.image.registry.credentials import Chain
    from sysbox.image.registry.endpoint import Endpoint
    from sysbox.image.registry.paced import Patience
    from sysbox.image.registry.transport import Body
    from sysbox.image.registry.url import Url


class Session:
    """What the requests of one repository share: connections, tokens, the scheme."""

    def __init__(self, endpoint: Endpoint, chain: Chain, patience: Patience | None = None) -> None:
        self.endpoint = endpoint
        self.transport = Transport(endpoint, patience)
        self._authorizer = Authorizer(endpoint, chain, self.transport)

    def send(
        self,
        method: str,
        target: str,
        *,
        headers: dict[str, str] | None = None,
        body: Body = None,
        push: bool = False,
        also: tuple[str, ...] = (),
        scopes: tuple[str, ...] | None = None,
        repeat: bool = True,
        follow: bool = True,
        wait: float = 0.0,
        limit: int = 0,
        what: str = "",
    ) -> Answer:
        """The answer of the registry to a request for a path of it, or for a URL (of an upload).

        `push` asks for the scope to write, `also` for further ones; `scopes` replaces them all. A URL of
        another server gets no authorisation. Raises AccessDenied, Unreachable, RegistryError.
        """
        url = self._url(target)
        if scopes is None:
            name = self.endpoint.repository
            scopes = (f"repository:{name}:{'pull,push' if push else 'pull'}", *also)
        home = url.origin() == self._url("/").origin()
        request = Request(
            method=method,
            url=url,
            headers=headers or {},
            body=body,
            repeat=repeat,
            follow=follow,
            wait=wait,
            limit=limit,
            what=what,
        )
        if not home:
            return self.transport.send(request)
        return self._authorised(request, scopes)

    def _authorised(self, request: Request, scopes: tuple[str, ...]) -> Answer:
        """The answer to an authorised request; a challenge takes a second one."""
        authorization = self._authorizer.header(scopes)
        answer = self.transport.send(request.replace(authorization=authorization))
        if answer.status != 401 or answer.url.origin() != request.url.origin():
            return answer  # the challenge of another server is not this registry's
        if authorization:
            self._authorizer.forget()  # a token that has expired, or lacks a scope
        answer.drop()
        self._authorizer.meet(answer, scopes)
        authorization = self._authorizer.header(scopes)
        answer = self.transport.send(request.replace(authorization=authorization))
        if answer.status == 401 and answer.url.origin() == request.url.origin():
            answer.drop()
            raise denied(self.endpoint, self._authorizer.credential())
        return answer

    def _url(self, target: str) -> Url:
        if not target.startswith("/"):
            return urls.parse(target, self.endpoint.name())
        if not self.endpoint.scheme:
            self.endpoint = self.endpoint.replace(scheme=self._find_scheme())
        return urls.make(self.endpoint.scheme, self.endpoint.host, self.endpoint.port, target)

    def _find_scheme(self) -> str:
        """https, and http only where that is accepted and the server has no TLS. Raises Unreachable."""
        if not self.endpoint.may_be_plain():
            return "https"
        try:
            self._try("https")
        except (NotTls, Cut):
            return "http"
        except Unreachable:
            if self.endpoint.port:
                raise  # neither would answer on this port
            self._try("http")  # without a port the two have different ones
            return "http"
        return "https"

    def _try(self, scheme: str) -> None:
        url = urls.make(scheme, self.endpoint.host, self.endpoint.port, "/v2/")
        self.transport.send(Request(method="GET", url=url, repeat=False, follow=False)).drop()
