"""`prbandit keys` writes what is missing, and nothing else."""

from __future__ import annotations

import stat
import sys
from pathlib import Path

import pytest

from wire import keys
from wire.roles import ROLES
from wire.security import KeyFileError

x509 = pytest.importorskip("cryptography.x509", reason="cryptography is not installed")


def _contents(folder: Path) -> dict[Path, bytes]:
    return {p: p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def test_everything_is_written_once_and_private_files_are_private(tmp_path: Path) -> None:
    written = keys.create(tmp_path, cells=["cell-1"], hosts=["10.0.0.7"], days=3)
    contents = _contents(tmp_path)
    assert sorted(written) == sorted(contents)
    expected = {"ca", *ROLES, "cell-1"}
    assert {p.stem for p in written} == expected
    for path in written:
        mode = stat.S_IMODE(path.stat().st_mode)
        assert mode == 0o600 if path.suffix == ".key" else mode & 0o400, path
    assert keys.create(tmp_path, cells=["cell-1"], hosts=["10.0.0.7"], days=3) == []
    assert _contents(tmp_path) == contents


def test_what_is_missing_is_added_and_the_rest_stays(tmp_path: Path) -> None:
    keys.create(tmp_path, cells=["cell-1"], days=3)
    for suffix in ("crt", "key"):
        (tmp_path / f"operator.{suffix}").unlink()
    before = _contents(tmp_path)
    written = keys.create(tmp_path, cells=["cell-1", "cell-2"], days=3)
    assert {p.name for p in written} == {"operator.key", "operator.crt", "cell-2.key", "cell-2.pub"}
    after = _contents(tmp_path)
    assert {p: after[p] for p in before} == before
    ca = x509.load_pem_x509_certificate((tmp_path / "ca.crt").read_bytes())
    operator = x509.load_pem_x509_certificate((tmp_path / "operator.crt").read_bytes())
    operator.verify_directly_issued_by(ca)


def test_the_authoritys_key_may_be_elsewhere_while_nothing_has_to_be_signed(tmp_path: Path) -> None:
    keys.create(tmp_path, cells=[], days=3)
    (tmp_path / "ca.key").unlink()
    assert {p.name for p in keys.create(tmp_path, cells=["c"], days=3)} == {"c.key", "c.pub"}
    for suffix in ("crt", "key"):
        (tmp_path / f"operator.{suffix}").unlink()
    with pytest.raises(KeyFileError, match=r"ca\.key is missing"):
        keys.create(tmp_path, cells=[], days=3)


def test_certificates_name_their_hosts_and_role(tmp_path: Path) -> None:
    keys.create(tmp_path, cells=[], hosts=["10.0.0.7", "edge.lab"], days=3)
    for role in ROLES:
        certificate = x509.load_pem_x509_certificate((tmp_path / f"{role}.crt").read_bytes())
        names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        dns = set(names.get_values_for_type(x509.DNSName))
        ips = {str(i) for i in names.get_values_for_type(x509.IPAddress)}
        assert dns == {role, "localhost", "edge.lab"}
        assert ips == {"127.0.0.1", "::1", "10.0.0.7"}
        lifetime = certificate.not_valid_after_utc - certificate.not_valid_before_utc
        assert lifetime.days == 3


def test_an_agent_of_one_host_has_its_roles_name_and_no_other_roles(tmp_path: Path) -> None:
    written = keys.create(tmp_path, cells=[], agents=["ptp-agent@edge-1"], days=3)
    assert tmp_path / "ptp-agent@edge-1.crt" in written
    certificate = x509.load_pem_x509_certificate((tmp_path / "ptp-agent@edge-1.crt").read_bytes())
    (common_name,) = certificate.subject.get_attributes_for_oid(x509.NameOID.COMMON_NAME)
    assert common_name.value == "ptp-agent@edge-1"
    names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert set(names.get_values_for_type(x509.DNSName)) == {"ptp-agent", "localhost"}


@pytest.mark.parametrize("host", [*ROLES, "Edge-Agent", "CONTROLLER", "controller.", " Gnb-Mock. "])
def test_a_host_with_a_roles_name_would_make_every_certificate_that_roles(tmp_path: Path, host: str) -> None:
    with pytest.raises(ValueError, match=f"hosts: {host} is the name of a role"):
        keys.create(tmp_path / "keys", cells=[], hosts=[host], days=3)
    assert not (tmp_path / "keys").exists()


@pytest.mark.parametrize("agent", ["ptp-agent", "ptp-agent@", "nobody@edge", "ptp-agent@../x", "@edge"])
def test_an_agent_that_is_not_a_role_on_a_host_is_refused(tmp_path: Path, agent: str) -> None:
    with pytest.raises(ValueError, match=r"agents: .* is not ROLE@HOST"):
        keys.create(tmp_path / "keys", cells=[], agents=[agent], days=3)
    assert not (tmp_path / "keys").exists()


def test_half_a_pair_is_an_error_that_names_the_missing_half(tmp_path: Path) -> None:
    keys.create(tmp_path, cells=["cell-1"], days=3)
    (tmp_path / "curve" / "cells" / "cell-1.pub").unlink()
    before = _contents(tmp_path)
    with pytest.raises(KeyFileError, match=r"cell-1\.pub is missing"):
        keys.create(tmp_path, cells=["cell-1", "cell-2"], days=3)
    assert _contents(tmp_path) == before


@pytest.mark.parametrize("cell", ["", "../x", "a/b", ".hidden", "x" * 64])
def test_a_cell_id_that_cannot_name_a_file_is_refused_before_anything_is_written(
    tmp_path: Path, cell: str
) -> None:
    with pytest.raises(KeyFileError, match="cannot name a key"):
        keys.create(tmp_path / "keys", cells=[cell], days=3)
    assert not (tmp_path / "keys").exists()


def test_days_and_hosts_are_checked(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="days"):
        keys.create(tmp_path, cells=[], days=0)
    with pytest.raises(ValueError, match="hosts"):
        keys.create(tmp_path, cells=[], hosts=[" "], days=1)


def test_without_cryptography_the_extra_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "cryptography", None)
    with pytest.raises(keys.MissingExtra, match=r"install -e '\.\[keys\]'"):
        keys.create(tmp_path, cells=[], days=1)
