"""Ask a network's resolver something, to see whether it answers."""

from __future__ import annotations

import _socket
import time

from sysbox.resolver.wire import A, Wire, answers_to

_PATIENCE_MS = 2000
_NAME = "resolver.sysbox"  # no answer is "no such name", and it is not forwarded


def ask(gateway: str, port: int = 53) -> float:
    """Seconds until the resolver at an address has answered; 0 if it does not."""
    import select

    question = Wire().question(_NAME, A)
    family = _socket.AF_INET6 if ":" in gateway else _socket.AF_INET
    began = time.monotonic()
    sock = _socket.socket(family, _socket.SOCK_DGRAM | _socket.SOCK_CLOEXEC)
    try:
        sock.connect((gateway, port))
        sock.send(question)
        poll = select.poll()
        poll.register(sock.fileno(), select.POLLIN)
        if poll.poll(_PATIENCE_MS) and answers_to(sock.recv(512), question[:2], question[12:]):
            return time.monotonic() - began
    except OSError:
        pass  # ignoring: that is no answer either
    finally:
        sock.close()
    return 0.0
