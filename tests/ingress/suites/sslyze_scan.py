"""sslyze: ingress' TLS against Mozilla's intermediate configuration, and what else it looks for.

There is nothing to compare with: the origin has no TLS.
"""

from __future__ import annotations

import sys

from sslyze import (
    ScanCommand,
    ScanCommandAttemptStatusEnum,
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
            scan(report, stand.tls_port)
    finally:
        recorder.stop()
    report.end()


def scan(report: Comparison, port: int) -> None:
    scanner = Scanner()
    where = ServerNetworkLocation(hostname=HOST, ip_address="127.0.0.1", port=port)
    commands = set(ScanCommand) - {ScanCommand.HTTP_HEADERS}
    scanner.queue_scans([ServerScanRequest(where, ServerNetworkConfiguration(tls_server_name_indication=HOST), scan_commands=commands)])
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
    resumed = found.session_resumption.result.tls_ticket_resumption_result.name
    report.must("session tickets", "FULLY_SUPPORTED", resumed)


if __name__ == "__main__":
    main()
