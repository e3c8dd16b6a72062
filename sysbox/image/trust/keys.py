"""Public and private keys of sigstore signatures: ECDSA, Ed25519 and RSA, as PEM.

ECDSA and RSA (PKCS #1 v1.5) sign the payload's SHA-256, Ed25519 the payload itself, as cosign and
containers/image have it.
"""

from __future__ import annotations

from sysbox.base import program
from sysbox.base.errors import SpecError, TrustError, Unsupported

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

MAX_KEY = 1 << 20  # bytes of a file
_MIN_RSA = 2048  # bits
_COSIGN = (b"ENCRYPTED SIGSTORE PRIVATE KEY", b"ENCRYPTED COSIGN PRIVATE KEY")


def public(data: bytes) -> Any:
    """A public key. Raises TrustError for anything else than a supported one."""
    _, serialization, _, _, _, unsupported = _library()
    try:
        key = serialization.load_pem_public_key(data)
    except (ValueError, TypeError, unsupported):
        raise TrustError("no public key in PEM in it") from None
    if not _is_supported(key):
        raise TrustError("its key is not ECDSA, Ed25519 or RSA with 2048 bits")
    return key


def verifies(key: Any, signature: bytes, payload: bytes) -> bool:
    """Whether the public key has signed the payload."""
    hashes, _, ec, padding, ed25519, _ = _library()
    from cryptography.exceptions import InvalidSignature

    try:
        if isinstance(key, ec.EllipticCurvePublicKey):
            key.verify(signature, payload, ec.ECDSA(hashes.SHA256()))
        elif isinstance(key, ed25519.Ed25519PublicKey):
            key.verify(signature, payload)
        else:
            key.verify(signature, payload, padding.PKCS1v15(), hashes.SHA256())
    except InvalidSignature:
        return False
    return True


def private(data: bytes, passphrase: bytes, what: str) -> Any:
    """A private key; `passphrase` is b"" for one that is not encrypted.

    Raises Unsupported for cosign's own encryption, whose cipher (XSalsa20) the library lacks; SpecError for
    a wrong passphrase, and for anything else than a supported key.
    """
    if any(mark in data for mark in _COSIGN):
        raise Unsupported(
            f"{what}: keys with cosign's own encryption are not supported",
            hint="use a PKCS #8 key: openssl genpkey -algorithm EC -pkeyopt ec_paramgen_curve:P-256 -aes256",
        )
    _, serialization, _, _, _, unsupported = _library()
    try:
        key = serialization.load_pem_private_key(data, passphrase or None)
    except TypeError:
        why = "is not encrypted, and there is a" if passphrase else "is encrypted: it needs a"
        raise SpecError(
            f"{what}: the key {why} passphrase", hint="see --sign-passphrase-file"
        ) from None
    except ValueError:
        raise SpecError(
            f"{what}: not a private key in PEM" + (", or a wrong passphrase" if passphrase else "")
        ) from None
    except unsupported as error:
        raise SpecError(f"{what}: {error}") from None
    if not _is_supported(key.public_key() if hasattr(key, "public_key") else key):
        raise SpecError(f"{what}: the key is not ECDSA, Ed25519 or RSA with 2048 bits")
    return key


def sign(key: Any, payload: bytes) -> bytes:
    """The signature of a payload by a private key."""
    hashes, _, ec, padding, ed25519, _ = _library()
    made: bytes
    if isinstance(key, ec.EllipticCurvePrivateKey):
        made = key.sign(payload, ec.ECDSA(hashes.SHA256()))
    elif isinstance(key, ed25519.Ed25519PrivateKey):
        made = key.sign(payload)
    else:
        made = key.sign(payload, padding.PKCS1v15(), hashes.SHA256())
    return made


def _is_supported(key: Any) -> bool:
    _, _, ec, _, ed25519, _ = _library()
    from cryptography.hazmat.primitives.asymmetric import rsa

    if isinstance(key, rsa.RSAPublicKey):
        return key.key_size >= _MIN_RSA
    return isinstance(key, ec.EllipticCurvePublicKey | ed25519.Ed25519PublicKey)


def _library() -> tuple[Any, Any, Any, Any, Any, Any]:
    """The parts of `cryptography` that are used here."""
    program.load_site()
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec, ed25519, padding

    return hashes, serialization, ec, padding, ed25519, UnsupportedAlgorithm
