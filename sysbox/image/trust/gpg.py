"""Verify OpenPGP signed messages with gpg(1), in a home directory that has the policy's keys alone.

The user's keyring and configuration are never read, and no agent, key server or dirmngr is asked. gpgv(1)
would not do: it accepts keys that have expired or were revoked. A signature counts only if the status lines
(doc/DETAILS of GnuPG, "General status codes") are exactly those of one valid signature over one message: an
unknown line, a second signature or further data refuses it.
"""

from __future__ import annotations

import posix

from sysbox.base import files, paths
from sysbox.base.errors import FormatError, TrustError, Unsupported
from sysbox.base.flock import Lock
from sysbox.base.frozen import Frozen
from sysbox.linux import process

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Self

MAX_SIGNATURE = 1 << 20  # bytes of a signed message, and of what it contains
MAX_KEYRING = 16 << 20
TIMEOUT = 30  # seconds
WORK = f"{paths.IMAGES}/temporary"  # gc removes what a killed command has left there
_PROGRAM = "gpg"
_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
_OPTIONS = (
    "--no-options", "--batch", "--no-tty", "--quiet", "--no-autostart", "--disable-dirmngr",
    "--no-auto-key-retrieve", "--no-auto-key-locate", "--trust-model", "always", "--status-fd", "1",
)  # fmt: skip
# each appears once in the status of a good signature
_ONCE = ("NEWSIG", "GOODSIG", "VALIDSIG", "PLAINTEXT")
_HARMLESS = frozenset(
    """KEY_CONSIDERED SIG_ID PLAINTEXT_LENGTH VERIFICATION_COMPLIANCE_MODE TRUST_UNDEFINED TRUST_NEVER
       TRUST_MARGINAL TRUST_FULLY TRUST_ULTIMATE NOTATION_NAME NOTATION_FLAGS NOTATION_DATA
       POLICY_URL""".split()
)
_WRONG = {
    "BADSIG": "the signature does not fit its content",
    "ERRSIG": "another key has signed it",
    "NO_PUBKEY": "another key has signed it",
    "EXPSIG": "the signature has expired",
    "EXPKEYSIG": "the key has expired",
    "REVKEYSIG": "the key was revoked",
    "NODATA": "it is not an OpenPGP signed message",
    "UNEXPECTED": "it is not an OpenPGP signed message",
    "FAILURE": "it is not an OpenPGP signed message",
}
_WEAK = {"1": "MD5", "2": "SHA-1", "3": "RIPEMD-160"}  # RFC 4880, 9.4
_OVER_BINARY, _OVER_TEXT = "00", "01"  # classes of signatures over a document


class Signed(Frozen):
    """A message with one valid signature."""

    content: bytes
    fingerprint: str  # of the primary key, in upper-case hexadecimal digits


class Keyring:
    """A home directory of gpg with some public keys; a context manager."""

    def __init__(self, keys: Sequence[bytes]) -> None:
        self._keys = keys
        self._home = f"{WORK}/gpg-{posix.getpid()}-{posix.urandom(6).hex()}"
        self._lock: Lock | None = None
        self.fingerprints: frozenset[str] = frozenset()

    def __enter__(self) -> Self:
        """Raises TrustError for keys that cannot be read, Unsupported without gpg."""
        # gc removes temporary directories only with the exclusive lock
        self._lock = Lock(f"{WORK.rpartition('/')[0]}/use.lock", shared=True)
        try:
            files.make_private(self._home)
            self.fingerprints = frozenset(fpr for key in self._keys for fpr in self._add(key))
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        files.remove_tree(self._home)
        if self._lock:
            self._lock.release()

    def verify(self, message: bytes) -> Signed:
        """What the message contains. Raises TrustError unless one of the keys has signed exactly that."""
        if len(message) > MAX_SIGNATURE:
            raise TrustError(f"larger than {MAX_SIGNATURE} bytes")
        if not message or not message[0] & 0x80:
            # every packet begins with this bit (RFC 4880, 4.2): text may have anything around what is signed
            raise TrustError(_WRONG["NODATA"])
        path = f"{self._home}/content"
        files.unlink(path)
        code, lines = self._run(
            message, "--max-output", str(MAX_SIGNATURE), "--output", path, "--decrypt"
        )
        fingerprint = signer(code, lines)
        if fingerprint not in self.fingerprints:
            raise TrustError(_WRONG["NO_PUBKEY"])
        content = _output(path)
        if content is None:
            raise TrustError("it has no content")
        return Signed(content=content, fingerprint=fingerprint)

    def owners(self) -> list[str]:
        """The mail addresses of the keys, or the whole user ids that have none."""
        _, lines = self._run(b"", "--with-colons", "--list-keys", colons=True)
        found = [words[9] for words in lines if words[0] == "uid" and len(words) > 9]
        return [one.rpartition("<")[2].rstrip(">") if "<" in one else one for one in found]

    def _add(self, key: bytes) -> list[str]:
        """Import a file of keys; their fingerprints."""
        _, lines = self._run(key, "--import-options", "import-minimal", "--import")
        found = [words[2] for words in lines if words[0] == "IMPORT_OK" and len(words) > 2]
        if not found:
            raise TrustError("no OpenPGP public key in it")
        return found

    def _run(
        self, data: bytes, *arguments: str, colons: bool = False
    ) -> tuple[int, list[list[str]]]:
        """(exit status, the words of each status line); with `colons`, of each line of a listing."""
        import subprocess

        program = process.find_program(_PROGRAM)
        if "/" not in program:
            raise Unsupported(
                "gpg is not installed, and policy.json has keys for it", hint="apt-get install gpg"
            )
        try:
            done = subprocess.run(
                [program, "--homedir", self._home, *_OPTIONS, *arguments],
                input=data, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, timeout=TIMEOUT,
                env={"PATH": _PATH, "LC_ALL": "C.UTF-8", "HOME": self._home}, cwd="/", check=False,
            )  # fmt: skip
        except subprocess.TimeoutExpired:
            raise TrustError(f"gpg did not end within {TIMEOUT} s") from None
        if colons:
            lines = done.stdout.decode("utf-8", "replace").splitlines()
            return done.returncode, [line.split(":") for line in lines]
        return done.returncode, status_lines(done.stdout)


def _output(path: str) -> bytes | None:
    """What gpg has written, None for nothing. Raises TrustError."""
    try:
        return files.read_file(path, MAX_SIGNATURE)
    except FormatError as error:
        raise TrustError(error.message) from None


def status_lines(output: bytes) -> list[list[str]]:
    """The words of each line of --status-fd, without its prefix. Raises TrustError for any other line."""
    found = []
    for line in output.decode("utf-8", "replace").split("\n"):
        prefix, _, rest = line.partition(" ")
        if not line:
            continue
        if prefix != "[GNUPG:]" or not rest:
            raise TrustError("gpg printed something else than status lines")
        found.append(rest.split(" "))
    return found


def signer(code: int, lines: list[list[str]]) -> str:
    """The primary key's fingerprint, from the status of a verification. Raises TrustError.

    What is not known to be harmless is an error: gpg also prints what is good about a message that has
    other parts.
    """
    keywords = [words[0] for words in lines]
    for keyword in keywords:
        if keyword in _WRONG:
            raise TrustError(_WRONG[keyword])
    for keyword in keywords:
        if keyword not in _HARMLESS and keyword not in _ONCE:
            raise TrustError(f"gpg reports {keyword}")
    if [keyword for keyword in keywords if keyword in _ONCE].count("VALIDSIG") > 1:
        raise TrustError("it has several signatures")
    if sorted(keyword for keyword in keywords if keyword in _ONCE) != sorted(_ONCE) or code:
        raise TrustError("it is not a message with one signature")
    valid = lines[keywords.index("VALIDSIG")]
    if len(valid) != 11:
        raise TrustError("gpg does not say which key has signed it")
    if valid[8] in _WEAK:
        raise TrustError(f"it is signed with {_WEAK[valid[8]]}, which is broken")
    if valid[9] not in (_OVER_BINARY, _OVER_TEXT):
        raise TrustError("its signature is not that of a document")
    return valid[10]
