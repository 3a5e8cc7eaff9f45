"""Keys and signed texts: published vectors, another implementation, and a refusal for every other spelling."""

from __future__ import annotations

import base64
import json
import warnings

import pytest
from joserfc import jws as joserfc_jws
from joserfc.errors import SecurityWarning
from joserfc.jwk import OKPKey

from clearspan.model.errors import InvalidProof
from clearspan.proof.signing import (
    RECEIPT_TYPE,
    PublicKey,
    SigningKey,
    parse_jwk,
    parse_jwks,
    render_jwks,
    sign_jws,
    verify_jws,
)
from clearspan.testing.clock import CountingIds

TYP = RECEIPT_TYPE
KEY = SigningKey(bytes(range(32)))
OTHER = SigningKey(bytes(range(1, 33)))
PAYLOAD = b'{"a":1,"b":"\xc3\xa9"}'
ALPHABET = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"


def encoded(value: bytes) -> str:
    return base64.urlsafe_b64encode(value).rstrip(b"=").decode()


def signed_with_header(header: str, payload: bytes = PAYLOAD) -> str:
    """A text whose signature is right, whatever its header says."""
    message = f"{encoded(header.encode())}.{encoded(payload)}"
    return f"{message}.{encoded(KEY.sign(message.encode()))}"


def test_the_vectors_of_rfc_8037() -> None:
    seed = base64.urlsafe_b64decode("nWGxne_9WmC6hEr0kuwsxERJxWl7MmkZcDusAxyuf2A=")
    key = SigningKey(seed)
    assert key.public_jwk()["x"] == "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"
    assert key.key_id == "kPrK_qmxVWaYVA9wwBF6Iuo3vVzz7TxHCTwXBygrS4k"
    message = b"eyJhbGciOiJFZERTQSJ9.RXhhbXBsZSBvZiBFZDI1NTE5IHNpZ25pbmc"
    assert encoded(key.sign(message)) == (
        "hgyY0il_MGCjP0JzlnLWG1PPOt7-09PGcvMg3AIbQR6dWbhijcNR4ki4iylGjg5BhVsPt9g7sVvpAr_MuM0KAg"
    )


def test_a_signed_text_says_who_signed_and_what() -> None:
    jws = sign_jws(PAYLOAD, KEY, typ=TYP)
    assert verify_jws(jws, [OTHER.public, KEY.public], typ=TYP) == (PAYLOAD, KEY.key_id)
    assert jws == sign_jws(PAYLOAD, KEY, typ=TYP)
    header = json.loads(base64.urlsafe_b64decode(jws.split(".")[0] + "=="))
    assert header == {"alg": "Ed25519", "kid": KEY.key_id, "typ": TYP}


def test_another_implementation_reads_what_we_sign() -> None:
    jws = sign_jws(PAYLOAD, KEY, typ=TYP)
    theirs = OKPKey.import_key(KEY.public_jwk())  # type: ignore[arg-type]
    assert joserfc_jws.deserialize_compact(jws, theirs, algorithms=["Ed25519"]).payload == PAYLOAD
    assert theirs.thumbprint() == KEY.key_id


def test_we_read_what_another_implementation_signs() -> None:
    private = OKPKey.import_key({**KEY.public_jwk(), "d": encoded(KEY.seed)})  # type: ignore[arg-type]
    for alg in ("Ed25519", "EdDSA"):
        header = {"alg": alg, "kid": KEY.key_id, "typ": TYP}
        private_for_alg = OKPKey.import_key({**private.as_dict(private=True), "alg": alg})
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", SecurityWarning)  # RFC 9864 retires the name "EdDSA"; old texts keep it
            jws = joserfc_jws.serialize_compact(header, PAYLOAD, private_for_alg, algorithms=[alg])
        assert verify_jws(jws, [KEY.public], typ=TYP) == (PAYLOAD, KEY.key_id)


def test_every_change_of_one_character_is_refused() -> None:
    jws = sign_jws(PAYLOAD, KEY, typ=TYP)
    for at, right in enumerate(jws):
        for wrong in set(ALPHABET + ".=+/ \n\0\u0430") - {right}:
            with pytest.raises(InvalidProof):
                verify_jws(jws[:at] + wrong + jws[at + 1 :], [KEY.public], typ=TYP)
        with pytest.raises(InvalidProof):
            verify_jws(jws[:at] + jws[at + 1 :], [KEY.public], typ=TYP)


@pytest.mark.parametrize("change", [" {}", "{} ", "{}\n", "{}=", "{}.", ".{}", "\ufeff{}", "{}.AAAA"])
def test_nothing_may_stand_around_a_signed_text(change: str) -> None:
    with pytest.raises(InvalidProof):
        verify_jws(change.format(sign_jws(PAYLOAD, KEY, typ=TYP)), [KEY.public], typ=TYP)


@pytest.mark.parametrize("jws", ["", ".", "..", "...", "a.b.c", "x" * 5_000_000])
def test_what_is_no_signed_text_is_refused(jws: str) -> None:
    with pytest.raises(InvalidProof):
        verify_jws(jws, [KEY.public], typ=TYP)


KID = KEY.key_id
HEADERS = [
    f'{{"alg":"none","kid":"{KID}","typ":"{TYP}"}}',
    f'{{"alg":"HS256","kid":"{KID}","typ":"{TYP}"}}',
    f'{{"alg":"ed25519","kid":"{KID}","typ":"{TYP}"}}',
    f'{{"alg":"ES256","kid":"{KID}","typ":"{TYP}"}}',
    f'{{"alg":["Ed25519"],"kid":"{KID}","typ":"{TYP}"}}',
    f'{{"alg":"Ed25519","kid":"{KID}"}}',
    f'{{"alg":"Ed25519","typ":"{TYP}"}}',
    f'{{"alg":"Ed25519","kid":"{KID}","typ":"clearspan-head"}}',
    f'{{"alg":"Ed25519","kid":["{KID}"],"typ":"{TYP}"}}',
    f'{{"alg":"Ed25519","crit":["b64"],"kid":"{KID}","typ":"{TYP}"}}',
    f'{{"alg":"Ed25519","b64":false,"crit":["b64"],"kid":"{KID}","typ":"{TYP}"}}',
    f'{{"alg":"Ed25519","jwk":{json.dumps(KEY.public_jwk())},"kid":"{KID}","typ":"{TYP}"}}',
    f'{{"alg":"Ed25519","jku":"http://127.0.0.1/","kid":"{KID}","typ":"{TYP}"}}',
    f'{{"alg":"Ed25519","x5c":[],"kid":"{KID}","typ":"{TYP}"}}',
    f'{{"alg":"none","alg":"Ed25519","kid":"{KID}","typ":"{TYP}"}}',
    f'{{"alg":"Ed25519","alg":"Ed25519","kid":"{KID}","typ":"{TYP}"}}',
    f'{{"kid":"{KID}","alg":"Ed25519","typ":"{TYP}"}}',
    f'{{"alg": "Ed25519","kid":"{KID}","typ":"{TYP}"}}',
    f'{{"alg":"Ed25519","kid":"{KID}","typ":"{TYP}"}}\n',
    f'{{"alg":"\\u0045d25519","kid":"{KID}","typ":"{TYP}"}}',
    f'["Ed25519","{KID}","{TYP}"]',
    "null",
    "",
    "1e999",
    "[" * 100_000,
]


@pytest.mark.parametrize("header", HEADERS, ids=lambda header: header[:60])
def test_every_other_header_is_refused_even_with_a_right_signature(header: str) -> None:
    with pytest.raises(InvalidProof):
        verify_jws(signed_with_header(header), [KEY.public], typ=TYP)


def test_the_helper_of_the_test_above_makes_right_signatures() -> None:
    good = f'{{"alg":"Ed25519","kid":"{KID}","typ":"{TYP}"}}'
    assert verify_jws(signed_with_header(good), [KEY.public], typ=TYP)[0] == PAYLOAD


def test_a_swapped_key_is_refused() -> None:
    jws = sign_jws(PAYLOAD, KEY, typ=TYP)
    with pytest.raises(InvalidProof, match="not among those given"):
        verify_jws(jws, [OTHER.public], typ=TYP)
    with pytest.raises(InvalidProof, match="not among those given"):
        verify_jws(jws, [], typ=TYP)
    stolen_name = OTHER.public
    stolen_name.key_id, kept = KEY.key_id, stolen_name.key_id
    try:
        with pytest.raises(InvalidProof, match="changed or forged"):
            verify_jws(jws, [stolen_name], typ=TYP)
    finally:
        stolen_name.key_id = kept


def test_a_key_survives_its_jwk() -> None:
    assert parse_jwk(KEY.public_jwk()).public == KEY.public.public
    assert parse_jwk({"kty": "OKP", "crv": "Ed25519", "x": KEY.public_jwk()["x"]}).key_id == KEY.key_id
    assert [key.key_id for key in parse_jwks(render_jwks([KEY.public, OTHER.public]))] == [KEY.key_id, OTHER.key_id]
    assert [key.key_id for key in parse_jwks(KEY.public_jwk())] == [KEY.key_id]
    assert SigningKey.generate(CountingIds()).key_id == SigningKey.generate(CountingIds()).key_id
    assert SigningKey.generate().key_id != SigningKey.generate().key_id
    assert repr(KEY) == f"SigningKey({KEY.key_id})"


@pytest.mark.parametrize(
    "change",
    [
        {"kty": "RSA"},
        {"crv": "X25519"},
        {"crv": None},
        {"x": "AAAA"},
        {"x": KEY.public_jwk()["x"] + "="},
        {"x": KEY.public_jwk()["x"][:-1] + "h"},
        {"x": 7},
        {"kid": OTHER.key_id},
        {"alg": "none"},
        {"use": "enc"},
        {"d": encoded(KEY.seed)},
        {"x5u": "http://127.0.0.1/"},
    ],
    ids=str,
)
def test_another_kind_of_key_is_refused(change: dict[str, object]) -> None:
    with pytest.raises(InvalidProof):
        parse_jwk({**KEY.public_jwk(), **change})


@pytest.mark.parametrize("value", [None, [], "x", {}, {"keys": []}, {"keys": {}}, {"keys": [{}]}])
def test_what_is_no_key_is_refused(value: object) -> None:
    with pytest.raises(InvalidProof):
        parse_jwks(value)
    with pytest.raises(InvalidProof):
        PublicKey(b"short")
