//! `logs`: what a deployment has printed, and with `-f` what it prints.

use api_types::{Deployment, LogLine, LogsQuery, NDJSON, code};
use chrono::{DateTime, SecondsFormat, Utc};
use model::{DeploymentId, Seen};
use reqwest::Method;
use reqwest::header::ACCEPT;

use super::Context;
use crate::args::LogsArgs;
use crate::client::{may_repeat, pause, query};
use crate::failure::{ExitStatus, Failure};
use crate::stream::{Cut, Lines};
use crate::target::Prefer;
use crate::words;

/// Lines that are asked for after a break: more than are printed in one.
const CATCH_UP: u32 = 100_000;
/// Origin of lines that the workload did not print.
const REMARK: &str = "hythe";

pub(super) async fn run(context: &Context, args: LogsArgs) -> Result<(), Failure> {
    let since = args.since.as_deref().map(|text| words::since(text, Utc::now())).transpose()?;
    let deployment = context.deployment(&args.target, Prefer::Primary).await?;
    let mut log = Log {
        context,
        deployment: deployment.id,
        follow: args.follow,
        timestamps: args.timestamps,
        lines: args.lines,
        since,
        place: Place::default(),
        broke_off: None,
    };
    if args.follow { log.follow().await } else { log.once().await }
}

struct Log<'a> {
    context: &'a Context,
    deployment: DeploymentId,
    follow: bool,
    timestamps: bool,
    lines: u32,
    since: Option<DateTime<Utc>>,
    place: Place,
    /// Why it last broke off, where it was said.
    broke_off: Option<String>,
}

/// How far the log was shown: the time of the last line, and how many lines of that time.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Place {
    at_ms: Option<u64>,
    count: usize,
}

impl Place {
    fn pass(&mut self, at_ms: u64) {
        if self.at_ms == Some(at_ms) {
            self.count += 1;
        } else {
            *self = Self { at_ms: Some(at_ms), count: 1 };
        }
    }
}

impl Log<'_> {
    async fn once(&mut self) -> Result<(), Failure> {
        let mut lines = self.open().await?;
        while let Some(line) = lines.next_json::<LogLine>().await? {
            self.show(&line?)?;
        }
        Ok(())
    }

    /// Goes on over as many connections as it takes, until the deployment is gone.
    async fn follow(&mut self) -> Result<(), Failure> {
        let mut tries = 0;
        let mut was_away = false;
        loop {
            match self.open().await {
                Ok(lines) => {
                    was_away = false;
                    if self.read(lines).await? {
                        tries = 0;
                    }
                }
                Err(failure) if failure.code.as_deref() == Some(code::NOT_RUNNING) => {}
                Err(failure) if failure.exit == ExitStatus::NotFound && tries > 0 => return Ok(()),
                Err(failure)
                    if may_repeat(&failure) || (failure.exit == ExitStatus::Unreachable && tries > 0) =>
                {
                    if !was_away {
                        self.context.output.note("the host is away; waiting for it");
                    }
                    was_away = true;
                }
                Err(failure) => return Err(failure),
            }
            tries += 1;
            pause(tries).await;
            if !was_away && self.is_gone().await {
                return Ok(());
            }
        }
    }

    async fn is_gone(&self) -> bool {
        let path = format!("/v1/deployments/{}", self.deployment);
        match self.context.client.get::<Deployment>(&path).await {
            Ok(deployment) => deployment.state == Seen::Destroyed,
            Err(failure) => failure.exit == ExitStatus::NotFound,
        }
    }

    /// From the last shown line on, that one's millisecond included.
    async fn open(&self) -> Result<Lines, Failure> {
        let last = self.place.at_ms.and_then(|at| DateTime::from_timestamp_millis(i64::try_from(at).ok()?));
        let wanted = LogsQuery {
            lines: Some(if last.is_some() { CATCH_UP } else { self.lines }),
            follow: self.follow.then_some(true),
            since: last.or(self.since),
        };
        let path = format!("/v1/deployments/{}/logs{}", self.deployment, query(&wanted));
        let request = self.context.client.request(Method::GET, &path)?.header(ACCEPT, NDJSON);
        Ok(Lines::of(self.context.client.send(request).await?))
    }

    /// Until the stream ends or breaks; whether the workload had printed anything new.
    async fn read(&mut self, mut lines: Lines) -> Result<bool, Failure> {
        let begun_at = self.place;
        let mut again = begun_at.count;
        let mut is_new = false;
        // The last line, where the host or the daemon said it, and the place before it.
        let mut remark: Option<(String, Place)> = None;
        loop {
            let line = match lines.next_json::<LogLine>().await {
                Ok(Some(line)) => line?,
                Ok(None) => return Ok(is_new),
                Err(Cut::Broken(_)) => {
                    // A log that breaks off ends with the host's remark why, of the host's present time,
                    // which says nothing of how far the log was read.
                    if let Some((text, place)) = remark {
                        self.place = place;
                        self.broke_off = Some(text);
                    }
                    return Ok(is_new);
                }
                Err(cut) => return Err(cut.into()),
            };
            if begun_at.at_ms == Some(line.at_ms) && again > 0 {
                again -= 1;
                continue;
            }
            if line.origin == REMARK {
                remark = Some((line.text.clone(), self.place));
                // Said once, however often it is tried again.
                if self.broke_off.as_ref() == Some(&line.text) {
                    continue;
                }
            } else {
                remark = None;
                is_new = true;
                self.broke_off = None;
            }
            self.show(&line)?;
        }
    }

    fn show(&mut self, line: &LogLine) -> Result<(), Failure> {
        self.place.pass(line.at_ms);
        let output = &self.context.output;
        if output.is_json() {
            return output.record(line);
        }
        let mut text = String::new();
        if self.timestamps {
            let at = i64::try_from(line.at_ms).ok().and_then(DateTime::from_timestamp_millis);
            text.push_str(&at.unwrap_or_default().to_rfc3339_opts(SecondsFormat::Millis, true));
            text.push(' ');
        }
        // The program's own words stand as they are; ours and those of the set-up say whose they are.
        if !matches!(line.origin.as_str(), "stdout" | "stderr") {
            text.push_str(&format!("[{}] ", line.origin));
        }
        text.push_str(&line.text);
        output.line(&text)
    }
}
