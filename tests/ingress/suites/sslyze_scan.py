"""sslyze: ingress' TLS against Mozilla's intermediate configuration, and what else it looks for.

There is nothing to compare with: the origin has no TLS.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from sslyze import (
    CertificateInfoExtraArgument,
    ScanCommand,
    ScanCommandAttemptStatusEnum,
    ScanCommandsExtraArguments,
    Scanner,
    ServerNetworkConfiguration,
    ServerNetworkLocation,
    ServerScanRequest,
    ServerScanStatusEnum,
)
from sslyze.mozilla_tls_profile.tls_config_checker import (
    MozillaTlsConfiguration,
    ServerNotCompliantWithTlsConfiguration,
    TlsConfigurationEnum,
    check_server_against_tls_configuration,
)

from kit import certificates
from kit.stand import HOST, Route, Stand
from matrix.recorder import Recorder

from .common import Comparison, arguments, skip


def main() -> None:
    given = arguments(__doc__)
    if not given.tls:
        skip("the stand has no TLS (--no-tls)")
    report = Comparison("sslyze", given.work)
    leaf = certificates.make(given.work / "certificates", HOST)
    recorder = Recorder()
    try:
        with Stand(given.stand, given.work, [Route(recorder.port)], certificate=leaf) as stand:
            scan(report, stand.tls_port, leaf, given.work)
    finally:
        recorder.stop()
    report.end()


def scan(report: Comparison, port: int, leaf: certificates.Leaf, work: Path) -> None:
    scanner = Scanner()
    where = ServerNetworkLocation(hostname=HOST, ip_address="127.0.0.1", port=port)
    commands = set(ScanCommand) - {ScanCommand.HTTP_HEADERS}
    trust = ScanCommandsExtraArguments(certificate_info=CertificateInfoExtraArgument(custom_ca_file=leaf.authority))
    network = ServerNetworkConfiguration(tls_server_name_indication=HOST)
    scanner.queue_scans([ServerScanRequest(where, network, scan_commands=commands, scan_commands_extra_arguments=trust)])
    result = next(iter(scanner.get_results()))
    report.must("reached", ServerScanStatusEnum.COMPLETED.name, result.scan_status.name)
    if not result.scan_result:
        print(f"not scanned: {result.connectivity_error_trace}", file=sys.stderr)
        return
    found = result.scan_result
    try:
        wanted = MozillaTlsConfiguration.get(TlsConfigurationEnum.MOZILLA_INTERMEDIATE)
        check_server_against_tls_configuration(result, wanted)
        issues = "compliant"
    except ServerNotCompliantWithTlsConfiguration as wrong:
        issues = "; ".join(f"{what}: {why}" for what, why in wrong.issues.items())
        print(f"not as Mozilla's intermediate configuration: {issues}", file=sys.stderr)
    report.must("Mozilla intermediate", "compliant", issues)
    for command in sorted(commands):
        attempt = getattr(found, command.value)
        report.must(f"{command.value}: looked at", "COMPLETED", attempt.status.name)
        if attempt.status is not ScanCommandAttemptStatusEnum.COMPLETED:
            print(f"{command.value}: {attempt.error_reason} {attempt.error_trace}", file=sys.stderr)
    accepted = lambda name: [one.cipher_suite.name for one in getattr(found, name).result.accepted_cipher_suites]
    for old in ["ssl_2_0_cipher_suites", "ssl_3_0_cipher_suites", "tls_1_0_cipher_suites", "tls_1_1_cipher_suites"]:
        report.must(f"{old}", [], accepted(old))
    report.must("TLS 1.2 and 1.3 are spoken", True, bool(accepted("tls_1_2_cipher_suites")) and bool(accepted("tls_1_3_cipher_suites")))
    print("TLS 1.2:", ", ".join(accepted("tls_1_2_cipher_suites")))
    print("TLS 1.3:", ", ".join(accepted("tls_1_3_cipher_suites")))
    report.must("heartbleed", False, found.heartbleed.result.is_vulnerable_to_heartbleed)
    report.must("CCS injection", False, found.openssl_ccs_injection.result.is_vulnerable_to_ccs_injection)
    report.must("compression", False, found.tls_compression.result.supports_compression)
    report.must("client renegotiation", False, found.session_renegotiation.result.is_vulnerable_to_client_renegotiation_dos)
    report.must("early data", False, found.tls_1_3_early_data.result.supports_early_data)
    # sslyze calls a session resumed only where the ticket stays the same; ingress gives a new one each time.
    for version in ["-tls1_2", "-tls1_3"]:
        report.must(f"tickets, openssl {version}", "Reused", resumed(port, leaf, version, work))


def resumed(port: int, leaf: certificates.Leaf, version: str, work: Path) -> str:
    """What openssl's client says of its second connection with the session of the first: `New` or `Reused`."""
    session = work / f"session{version}.pem"
    client = ["openssl", "s_client", "-connect", f"127.0.0.1:{port}", "-servername", HOST, version, "-ign_eof", "-CAfile", str(leaf.authority)]
    asked = f"GET / HTTP/1.1\r\nHost: {HOST}\r\nConnection: close\r\n\r\n".encode()
    said = b""
    for how in ["-sess_out", "-sess_in"]:
        said = subprocess.run([*client, how, str(session)], input=asked, capture_output=True, timeout=30).stdout
    return next((word for word in ("Reused", "New") if f"{word}, TLSv".encode() in said), "no session")


if __name__ == "__main__":
    main()
