"""The sidecar's own CA: made once, accepted by OpenSSL, and the same form that mitmproxy's has."""

import os
from pathlib import Path

import pytest
import trustme
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.x509 import Certificate, DNSName, load_pem_x509_certificate
from mitmproxy.certs import create_ca, dummy_cert
from OpenSSL import crypto

from counterfault.addons.transport.certificate_issuer import CertificateIssuer, load_issuer
from counterfault.proxy.config.certificate_authority import ensure_ca, parse_signer

PEM = serialization.Encoding.PEM
PLAIN = serialization.NoEncryption()
FORMS = serialization.PrivateFormat


def key_pem(key: rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey, form: FORMS) -> bytes:
    return key.private_bytes(PEM, form, PLAIN)


def made_by_mitmproxy() -> bytes:
    """Such a file as counterfault wrote while mitmproxy made its CA."""
    key, certificate = create_ca("counterfault", "counterfault", 2048)
    return key_pem(key, FORMS.TraditionalOpenSSL) + certificate.public_bytes(PEM)


def verify(root: Certificate, leaf: Certificate) -> None:
    """Let OpenSSL verify `leaf`, strictly, where `root` alone is trusted."""
    store = crypto.X509Store()
    store.add_cert(crypto.X509.from_cryptography(root))
    store.set_flags(crypto.X509StoreFlags.X509_STRICT)
    crypto.X509StoreContext(store, crypto.X509.from_cryptography(leaf)).verify_certificate()


def issued(pem: bytes) -> Certificate:
    """A certificate for shop.test, made as a worker makes it."""
    signer = parse_signer(pem)
    assert isinstance(signer.key, rsa.RSAPrivateKey)
    return dummy_cert(
        signer.key, signer.chain[0], "shop.test", [DNSName("shop.test")]
    ).to_cryptography()


@pytest.fixture(scope="module")
def own(tmp_path_factory) -> Path:
    return ensure_ca(tmp_path_factory.mktemp("state") / "ca")


def test_openssl_accepts_the_ca_and_what_it_signs(own):
    root = parse_signer(own.read_bytes()).chain[0]
    verify(root, root)
    verify(root, issued(own.read_bytes()))


def test_the_ca_is_made_once(own):
    before = own.read_bytes()
    assert ensure_ca(own.parent) == own
    assert own.read_bytes() == before


def test_the_certificate_alone_is_there_for_clients(own):
    public = own.with_name("counterfault-ca-cert.pem").read_bytes()
    assert b"PRIVATE" not in public
    assert load_pem_x509_certificate(public) == parse_signer(own.read_bytes()).chain[0]
    assert {path.stat().st_mode & 0o777 for path in own.parent.iterdir()} == {0o600}


def test_the_ca_says_what_mitmproxys_says(own):
    ours = parse_signer(own.read_bytes()).chain[0]
    theirs = parse_signer(made_by_mitmproxy()).chain[0]
    assert ours.subject == theirs.subject
    assert ours.issuer == theirs.issuer
    assert ours.version == theirs.version
    assert ours.signature_algorithm_oid == theirs.signature_algorithm_oid
    lifetimes = [c.not_valid_after_utc - c.not_valid_before_utc for c in (ours, theirs)]
    assert lifetimes[0] == lifetimes[1]
    said = [[(e.oid, e.critical) for e in c.extensions] for c in (ours, theirs)]
    assert said[0] == said[1]
    for mine, other in zip(ours.extensions, theirs.extensions, strict=True):
        if mine.oid.dotted_string != "2.5.29.14":  # the subject key's identifier is its own
            assert mine.value == other.value


def test_a_state_dir_of_an_older_version_is_used_as_it_is(tmp_path):
    old = made_by_mitmproxy()
    secret = tmp_path / "counterfault-ca.pem"
    secret.write_bytes(old)
    assert ensure_ca(tmp_path) == secret
    assert secret.read_bytes() == old
    verify(parse_signer(old).chain[0], issued(old))


def test_a_worker_issues_with_either(own, tmp_path):
    (tmp_path / "old.pem").write_bytes(made_by_mitmproxy())
    for file in (own, tmp_path / "old.pem"):
        issuer = load_issuer(str(file), None)
        assert isinstance(issuer, CertificateIssuer)
        assert issuer.context("shop.test") is issuer.context("SHOP.test")


@pytest.mark.parametrize("form", [FORMS.TraditionalOpenSSL, FORMS.PKCS8])
@pytest.mark.parametrize("kind", ["rsa", "ec"])
def test_a_users_own_file_may_have_either_form_of_key(kind, form):
    key_type = trustme.KeyType.RSA if kind == "rsa" else trustme.KeyType.ECDSA
    authority = trustme.CA(key_type=key_type)
    raw = serialization.load_pem_private_key(authority.private_key_pem.bytes(), None)
    assert isinstance(raw, rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey)
    signer = parse_signer(authority.cert_pem.bytes() + key_pem(raw, form))
    assert signer.key.public_key() == raw.public_key()
    assert len(signer.chain) == 1


def test_the_chain_follows_the_certificate():
    root = trustme.CA()
    middle = root.create_child_ca()
    pem = middle.private_key_pem.bytes() + middle.cert_pem.bytes() + root.cert_pem.bytes()
    assert [c.public_bytes(PEM) for c in parse_signer(pem).chain] == [
        middle.cert_pem.bytes(),
        root.cert_pem.bytes(),
    ]


def unfit() -> dict[str, tuple[bytes, str]]:
    authority, other = trustme.CA(), trustme.CA()
    key, leaf = authority.private_key_pem.bytes(), authority.issue_cert("shop.test")
    raw = serialization.load_pem_private_key(key, None)
    locked = raw.private_bytes(PEM, FORMS.PKCS8, serialization.BestAvailableEncryption(b"x"))
    return {
        "nothing": (b"", "a private key without a password"),
        "a password": (locked + authority.cert_pem.bytes(), "a private key without a password"),
        "no certificate": (key, "must have a certificate"),
        "no authority": (
            leaf.private_key_pem.bytes() + leaf.cert_chain_pems[0].bytes(),
            "CA:TRUE",
        ),
        "another's key": (key + other.cert_pem.bytes(), "belong together"),
    }


@pytest.mark.parametrize(("pem", "reason"), unfit().values(), ids=unfit())
def test_an_unfit_file_is_refused_with_its_reason(pem, reason):
    with pytest.raises(ValueError, match=reason):
        parse_signer(pem)


def test_a_directory_that_is_a_file_is_an_os_error(tmp_path):
    (tmp_path / "ca").touch()
    with pytest.raises(FileExistsError):
        ensure_ca(tmp_path / "ca")


def test_a_file_that_another_process_has_just_put_there_stays(tmp_path, monkeypatch):
    other = made_by_mitmproxy()
    secret = tmp_path / "counterfault-ca.pem"
    link = Path.hardlink_to

    def late(path: Path, target: Path) -> None:
        if path == secret:
            secret.write_bytes(other)
        link(path, target)

    monkeypatch.setattr(Path, "hardlink_to", late)
    ensure_ca(tmp_path)
    assert secret.read_bytes() == other
    assert sorted(os.listdir(tmp_path)) == ["counterfault-ca-cert.pem", "counterfault-ca.pem"]
