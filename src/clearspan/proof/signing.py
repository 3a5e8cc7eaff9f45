"""Ed25519 keys as JWK, and compact JWS in one strict form.

A signed text has one spelling only: the header is exactly {"alg", "kid", "typ"} in canonical JSON, nothing in it can
choose an algorithm or bring a key, and base64url must be canonical. So a change of any single character is refused.
Written `alg` is "Ed25519" (RFC 9864); "EdDSA" (RFC 8037) is read too.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from typing import Any, Self

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from clearspan.model.clock import IdSource, SystemIds
from clearspan.model.errors import InvalidProof
from clearspan.proof.canonical import canonical_json, parse_canonical
from clearspan.proof.encoding import from_base64url, to_base64url

ALGORITHM = "Ed25519"
_READ_ALGORITHMS = (ALGORITHM, "EdDSA")
KEY_BYTES = 32
SIGNATURE_BYTES = 64
JWS_CHARS_MAX = 4_000_000

_JWK_FIXED = {"kty": "OKP", "crv": "Ed25519"}
_JWK_OPTIONAL = {"kid", "alg", "use", "key_ops"}

RECEIPT_TYPE = "clearspan-receipt"
HEAD_TYPE = "clearspan-head"


class SigningKey:
    """A private Ed25519 key. Its text forms never hold the private part."""

    def __init__(self, seed: bytes) -> None:
        """
        Args:
            seed: the 32 private bytes of RFC 8032.
        """
        assert len(seed) == KEY_BYTES, "an Ed25519 key has 32 bytes"
        self.seed = seed
        self._private = Ed25519PrivateKey.from_private_bytes(seed)
        self.public = PublicKey(self._private.public_key().public_bytes_raw())

    @classmethod
    def generate(cls, ids: IdSource | None = None) -> Self:
        """A new key of 32 random bytes."""
        return cls((ids or SystemIds()).token_bytes(KEY_BYTES))

    @property
    def key_id(self) -> str:
        """RFC 7638 thumbprint of the public key."""
        return self.public.key_id

    def public_jwk(self) -> dict[str, str]:
        """The public key as a JWK."""
        return self.public.jwk()

    def sign(self, message: bytes) -> bytes:
        """The 64 bytes of the signature."""
        return self._private.sign(message)

    def __repr__(self) -> str:
        return f"SigningKey({self.key_id})"


class PublicKey:
    """A public Ed25519 key."""

    def __init__(self, public: bytes) -> None:
        """Raises InvalidProof unless it has 32 bytes."""
        if len(public) != KEY_BYTES:
            raise InvalidProof("An Ed25519 public key has 32 bytes.")
        self.public = public
        self.key_id = to_base64url(hashlib.sha256(canonical_json(_JWK_FIXED | {"x": to_base64url(public)})).digest())

    def jwk(self) -> dict[str, str]:
        """The key as a JWK (RFC 8037), with its thumbprint as `kid`."""
        return _JWK_FIXED | {"x": to_base64url(self.public), "kid": self.key_id, "alg": ALGORITHM, "use": "sig"}

    def verifies(self, signature: bytes, message: bytes) -> bool:
        """Whether this key made that signature."""
        try:
            Ed25519PublicKey.from_public_bytes(self.public).verify(signature, message)
        except (InvalidSignature, ValueError):
            return False
        return True

    def __repr__(self) -> str:
        return f"PublicKey({self.key_id})"


def parse_jwk(value: Any) -> PublicKey:
    """The key of a JWK. Raises InvalidProof for another kind of key, a private one, or a `kid` that is not its own."""
    if not isinstance(value, Mapping) or any(value.get(name) != fixed for name, fixed in _JWK_FIXED.items()):
        raise InvalidProof("A key is a JWK of kty OKP and crv Ed25519.")
    if "d" in value:
        raise InvalidProof("This JWK holds a private key; only the public one is needed, and only it may travel.")
    if set(value) - set(_JWK_FIXED) - _JWK_OPTIONAL != {"x"} or not isinstance(value["x"], str):
        raise InvalidProof("A key is a JWK with x and, at most, kid, alg, use and key_ops.")
    if value.get("alg", ALGORITHM) not in _READ_ALGORITHMS or value.get("use", "sig") != "sig":
        raise InvalidProof("This JWK is not for Ed25519 signatures.")
    key = PublicKey(from_base64url(value["x"]))
    if value.get("kid", key.key_id) != key.key_id:
        raise InvalidProof("The kid of this JWK is not the thumbprint of its key.")
    return key


def parse_jwks(value: Any) -> list[PublicKey]:
    """The keys of a JWK, or of a JWK set {"keys": [...]}. Raises InvalidProof; an empty set is refused."""
    if isinstance(value, Mapping) and "keys" in value:
        if not isinstance(value["keys"], list) or not value["keys"]:
            raise InvalidProof("This JWK set has no keys.")
        return [parse_jwk(each) for each in value["keys"]]
    return [parse_jwk(value)]


def render_jwks(keys: Iterable[PublicKey]) -> dict[str, Any]:
    """A JWK set of public keys."""
    return {"keys": [key.jwk() for key in keys]}


def sign_jws(payload: bytes, key: SigningKey, *, typ: str) -> str:
    """A compact JWS. Equal arguments give equal text: Ed25519 needs no randomness."""
    signed = f"{_header(ALGORITHM, key.key_id, typ)}.{to_base64url(payload)}"
    return f"{signed}.{to_base64url(key.sign(signed.encode()))}"


def verify_jws(jws: str, keys: Iterable[PublicKey], *, typ: str) -> tuple[bytes, str]:
    """Check a compact JWS of that type: (its payload, the id of the key that signed it).

    Raises:
        InvalidProof: any other form or spelling, an unknown key, a wrong signature. Nothing of it may be believed.
    """
    header, payload, signature = _parts(jws)
    kid = _key_id(header, typ)
    key = next((each for each in keys if each.key_id == kid), None)
    if key is None:
        raise InvalidProof("It was signed by a key that is not among those given.")
    message = jws[: jws.rindex(".")].encode()
    if len(signature) != SIGNATURE_BYTES or not key.verifies(signature, message):
        raise InvalidProof("The signature is not that of the key it names: the text was changed or forged.")
    return payload, kid


def _parts(jws: str) -> tuple[str, bytes, bytes]:
    if len(jws) > JWS_CHARS_MAX or not jws.isascii():
        raise InvalidProof("This is not a compact JWS.")
    parts = jws.split(".")
    if len(parts) != 3:
        raise InvalidProof("This is not a compact JWS: three parts joined by dots.")
    return parts[0], from_base64url(parts[1]), from_base64url(parts[2])


def _key_id(header: str, typ: str) -> str:
    """The `kid` of an encoded header that is spelled as ours are. Raises InvalidProof for every other header."""
    value = parse_canonical(from_base64url(header))
    kid = value.get("kid") if isinstance(value, dict) else None
    if not isinstance(kid, str) or header not in [_header(alg, kid, typ) for alg in _READ_ALGORITHMS]:
        raise InvalidProof(f"The header is not exactly alg Ed25519, kid and typ {typ}.")
    return kid


def _header(alg: str, kid: str, typ: str) -> str:
    return to_base64url(canonical_json({"alg": alg, "kid": kid, "typ": typ}))
