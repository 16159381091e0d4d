//! Seeing that the files have changed.
//!
//! By looking, not by `inotify`: certificates come by rename (certbot), by a swap of links two folders up
//! (Kubernetes), over NFS; looking at what the path leads to finds all of them.

use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use chrono::{DateTime, TimeDelta, Utc};

use super::settings::CertificateFiles;
use super::{Tls, TlsReport};

/// How long before its end a certificate is spoken of.
const SOON: TimeDelta = TimeDelta::days(14);
/// How often.
const REMINDER: TimeDelta = TimeDelta::days(1);

/// What the files were like; `None`: not there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Stamps(Vec<Option<Stamp>>);

#[derive(Debug, Clone, PartialEq, Eq)]
struct Stamp {
    device: u64,
    inode: u64,
    size: u64,
    modified: (i64, i64),
}

impl Stamps {
    pub(super) fn of(certificates: &[CertificateFiles]) -> Self {
        let paths = certificates.iter().flat_map(|files| [&files.certificate, &files.key]);
        Self(paths.map(|path| Stamp::of(path)).collect())
    }
}

impl Stamp {
    /// Of what the path leads to, through links.
    fn of(path: &Path) -> Option<Self> {
        let metadata = std::fs::metadata(path).ok()?;
        Some(Self {
            device: metadata.dev(),
            inode: metadata.ino(),
            size: metadata.size(),
            modified: (metadata.mtime(), metadata.mtime_nsec()),
        })
    }
}

/// What one look leaves for the next.
#[derive(Debug, Default)]
struct Watcher {
    /// Changed files that may still be being written.
    unsettled: Option<Stamps>,
    reminded: Option<DateTime<Utc>>,
}

impl Watcher {
    /// Reads the files where they have changed and were the same at the look before: whoever writes a certificate
    /// and then its key is given the time between two looks.
    fn look(&mut self, tls: &Tls) -> Option<TlsReport> {
        let now = {
            let source = tls.source.lock();
            let now = Stamps::of(&source.settings.certificates);
            if now == source.stamps {
                self.unsettled = None;
                return None;
            }
            now
        };
        if self.unsettled.as_ref() != Some(&now) {
            self.unsettled = Some(now);
            return None;
        }
        self.unsettled = None;
        Some(tls.reload())
    }

    /// Certificates that end soon or have ended: once a day.
    fn ending(&mut self, tls: &Tls, now: DateTime<Utc>) -> Vec<Arc<super::Certificate>> {
        if self.reminded.is_some_and(|last| now - last < REMINDER) {
            return Vec::new();
        }
        self.reminded = Some(now);
        tls.certificates().into_iter().filter(|certificate| certificate.not_after() - now < SOON).collect()
    }
}

impl Tls {
    /// Looks at the files `every` so often, for ever, and reads them again where they have changed; reports to the
    /// log, also each day which certificates have ended or end within two weeks. Spawn it; aborting it is fine.
    pub async fn watch(self: Arc<Self>, every: Duration) {
        let mut watcher = Watcher::default();
        let mut ticks = tokio::time::interval(every);
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            ticks.tick().await;
            let tls = self.clone();
            // Files may lie on a network that has stopped.
            let looked = tokio::task::spawn_blocking(move || {
                let report = watcher.look(&tls);
                let now = Utc::now();
                (report, watcher.ending(&tls, now), now, watcher)
            });
            let Ok((report, ending, now, back)) = looked.await else { return };
            watcher = back;
            if let Some(report) = report {
                report.log();
            }
            for certificate in ending {
                let file = certificate.path().unwrap_or(Path::new("")).display();
                let at = certificate.not_after();
                if at < now {
                    tracing::error!(%file, %at, "serving a certificate that has expired: renew it");
                } else {
                    tracing::warn!(%file, %at, "a certificate expires soon: renew it");
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::{Files, far};
    use super::*;

    #[test]
    fn reads_what_has_settled() {
        let files = Files::new();
        let pair = files.write("a", &["a.test"], far());
        let tls = files.tls(&[&pair]);
        let mut watcher = Watcher::default();
        assert!(watcher.look(&tls).is_none());

        files.write("a", &["a.test", "b.test"], far());
        assert!(watcher.look(&tls).is_none(), "it may still be being written");
        let report = watcher.look(&tls).unwrap();
        assert_eq!(report.loaded, std::slice::from_ref(&pair.certificate));
        assert!(tls.certificate_for(Some("b.test")).is_some());
        assert!(watcher.look(&tls).is_none());

        std::fs::remove_file(&pair.key).unwrap();
        assert!(watcher.look(&tls).is_none());
        assert_eq!(watcher.look(&tls).unwrap().failed.len(), 1);
        assert!(watcher.look(&tls).is_none(), "said once");
        assert!(tls.certificate_for(Some("b.test")).is_some());
    }

    #[test]
    fn sees_a_folder_swapped_by_a_link() {
        let files = Files::new();
        let root = files.path();
        let pair = |folder: &str| CertificateFiles {
            certificate: root.join(folder).join("a.pem"),
            key: root.join(folder).join("a-key.pem"),
            default: false,
        };
        for (folder, name) in [("1", "one.test"), ("2", "two.test")] {
            std::fs::create_dir(root.join(folder)).unwrap();
            files.write(&format!("{folder}/a"), &[name], far());
        }
        std::os::unix::fs::symlink("1", root.join("now")).unwrap();
        let tls = files.tls(&[&pair("now")]);
        std::os::unix::fs::symlink("2", root.join("next")).unwrap();
        std::fs::rename(root.join("next"), root.join("now")).unwrap();
        let mut watcher = Watcher::default();
        assert!(watcher.look(&tls).is_none());
        assert!(watcher.look(&tls).unwrap().failed.is_empty());
        assert!(tls.certificate_for(Some("two.test")).is_some());
        assert!(tls.certificate_for(Some("one.test")).is_none());
    }

    #[test]
    fn says_each_day_what_ends() {
        let files = Files::new();
        let soon = Utc::now() + TimeDelta::days(3);
        let ending = files.write("a", &["a.test"], soon);
        let other = files.write("b", &["b.test"], far());
        let tls = files.tls(&[&ending, &other]);
        let mut watcher = Watcher::default();
        let names = |all: Vec<Arc<super::super::Certificate>>| {
            all.iter().flat_map(|certificate| certificate.names()).collect::<Vec<_>>()
        };
        assert_eq!(names(watcher.ending(&tls, Utc::now())), ["a.test"]);
        assert!(watcher.ending(&tls, Utc::now()).is_empty());
        let tomorrow = Utc::now() + TimeDelta::hours(25);
        assert_eq!(names(watcher.ending(&tls, tomorrow)), ["a.test"]);
    }
}
