//! How a user makes their programs trust a certificate authority.

use std::path::Path;

/// Where trust is kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Platform {
    /// Debian, Ubuntu and their kin: curl, Python, Node with `--use-openssl-ca`, system services.
    Debian,
    /// Fedora, RHEL and their kin.
    Fedora,
    MacOs,
    /// Firefox, and Chromium on Linux: the user's NSS databases.
    Nss,
}

/// The commands for one platform.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TrustCommands {
    pub platform: Platform,
    /// For people.
    pub title: &'static str,
    /// To paste into a shell, in order.
    pub trust: Vec<String>,
    /// The same for taking it back.
    pub distrust: Vec<String>,
}

impl TrustCommands {
    /// Of all platforms, for the authority in the file `ca`.
    #[must_use]
    pub fn all(ca: &Path) -> Vec<Self> {
        let ca = quoted(&ca.display().to_string());
        let lines = |lines: &[&str]| lines.iter().map(|line| line.replace("{ca}", &ca)).collect();
        let nss = |verb: &str| {
            format!(
                "for db in ~/.pki/nssdb ~/.mozilla/firefox/*.default* ~/snap/firefox/common/.mozilla/firefox/*.default*; do \
                 [ -d \"$db\" ] && certutil -d \"sql:$db\" {verb}; done"
            )
        };
        vec![
            Self {
                platform: Platform::Debian,
                title: "Debian, Ubuntu",
                trust: lines(&[
                    "sudo install -m 644 {ca} /usr/local/share/ca-certificates/hythe-development.crt",
                    "sudo update-ca-certificates",
                ]),
                distrust: lines(&[
                    "sudo rm /usr/local/share/ca-certificates/hythe-development.crt",
                    "sudo update-ca-certificates --fresh",
                ]),
            },
            Self {
                platform: Platform::Fedora,
                title: "Fedora, RHEL",
                trust: lines(&["sudo trust anchor --store {ca}"]),
                distrust: lines(&["sudo trust anchor --remove {ca}"]),
            },
            Self {
                platform: Platform::MacOs,
                title: "macOS (Safari, Chrome, curl)",
                trust: lines(&[
                    "sudo security add-trusted-cert -d -r trustRoot -k /Library/Keychains/System.keychain {ca}",
                ]),
                distrust: lines(&["sudo security remove-trusted-cert -d {ca}"]),
            },
            Self {
                platform: Platform::Nss,
                title: "Firefox, and Chromium on Linux (certutil comes with libnss3-tools or nss-tools)",
                trust: vec![
                    "mkdir -p ~/.pki/nssdb".to_owned(),
                    nss(&format!("-A -t C,, -n 'Hythe development CA' -i {ca}")),
                ],
                distrust: vec![nss("-D -n 'Hythe development CA'")],
            },
        ]
    }
}

/// For a shell.
fn quoted(text: &str) -> String {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"/._-".contains(&byte);
    if text.bytes().all(plain) { text.to_owned() } else { format!("'{}'", text.replace('\'', r"'\''")) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_survive_the_shell() {
        for path in ["/var/lib/hythe/dev-ca/ca.pem", "/home/o'neil/my files/ca.pem"] {
            let output = std::process::Command::new("sh")
                .args(["-c", &format!("printf %s {}", quoted(path))])
                .output()
                .unwrap();
            assert_eq!(String::from_utf8(output.stdout).unwrap(), path);
        }
        for commands in TrustCommands::all(Path::new("/a b/ca.pem")) {
            assert!(commands.trust.iter().any(|line| line.contains("'/a b/ca.pem'")), "{commands:?}");
            assert!(!commands.distrust.is_empty());
        }
    }
}
