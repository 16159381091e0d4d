//! `events`: what happened, and what happens.

use api_types::{EVENT_STREAM, Event, EventQuery, Page};
use model::ProjectId;
use reqwest::Method;
use reqwest::header::ACCEPT;

use super::Context;
use crate::args::EventsArgs;
use crate::client::{may_repeat, pause, query};
use crate::failure::{ExitStatus, Failure};
use crate::stream::{Cut, Lines};
use crate::target::Target;

/// The most that the host gives at once.
const PAGE: u32 = 200;

pub(super) async fn run(context: &Context, args: EventsArgs) -> Result<(), Failure> {
    let (path, project) = match args.target.as_deref() {
        None => ("/v1/events".to_owned(), None),
        Some(text) => match Target::parse(Some(text), &context.folder)? {
            Target::Deployment(id) => (format!("/v1/deployments/{id}/events"), None),
            Target::Project(slug) => {
                let project: api_types::Project = context.client.get(&format!("/v1/projects/{slug}")).await?;
                ("/v1/events".to_owned(), Some(project.id))
            }
        },
    };
    let after = past(context, &path, project, &args).await?;
    if args.follow { follow(context, &path, project, after).await } else { Ok(()) }
}

/// Shows what there is: the newest, or page after page all since `--after`. The answer is the number of
/// the last one seen.
async fn past(
    context: &Context,
    path: &str,
    project: Option<ProjectId>,
    args: &EventsArgs,
) -> Result<u64, Failure> {
    let mut wanted = EventQuery { after: args.after, ..EventQuery::default() };
    match args.after {
        Some(_) => wanted.limit = Some(PAGE),
        // Of one project's, the newest of all must be looked through.
        // At least one, which says where following begins.
        None => wanted.last = Some(if project.is_some() { PAGE } else { args.lines.clamp(1, PAGE) }),
    }
    let mut seen = args.after.unwrap_or(0);
    loop {
        let page: Page<Event> = context.client.get(&format!("{path}{}", query(&wanted))).await?;
        let Some(last) = page.items.last().map(|event| event.seq) else { return Ok(seen) };
        let of_project = |event: &&Event| is_of(event, project);
        let count = page.items.iter().filter(of_project).count();
        let skipped = if args.after.is_none() { count.saturating_sub(args.lines as usize) } else { 0 };
        page.items.iter().filter(of_project).skip(skipped).try_for_each(|event| show(context, event))?;
        seen = last;
        if args.after.is_none() || page.next_cursor.is_none() {
            return Ok(seen);
        }
        wanted.after = Some(last);
    }
}

/// Shows what comes, over as many connections as it takes, none twice.
async fn follow(context: &Context, path: &str, project: Option<ProjectId>, from: u64) -> Result<(), Failure> {
    let mut after = from;
    let mut tries = 0;
    loop {
        let wanted = EventQuery { after: Some(after), follow: Some(true), ..EventQuery::default() };
        let request = context.client.request(Method::GET, &format!("{path}{}", query(&wanted)))?;
        match context.client.send(request.header(ACCEPT, EVENT_STREAM)).await {
            Ok(response) => {
                let mut lines = Lines::of(response);
                loop {
                    let event = match lines.next_event().await {
                        Ok(Some(event)) => event,
                        Ok(None) | Err(Cut::Broken(_)) => break,
                        Err(cut) => return Err(cut.into()),
                    };
                    // Remarks of the stream itself are no events of ours.
                    let Ok(event) = serde_json::from_slice::<Event>(&event) else { continue };
                    if event.seq <= after {
                        continue;
                    }
                    tries = 0;
                    after = event.seq;
                    if is_of(&event, project) {
                        show(context, &event)?;
                    }
                }
            }
            Err(failure) if failure.exit == ExitStatus::Unreachable && tries > 0 || may_repeat(&failure) => {}
            Err(failure) => return Err(failure),
        }
        tries += 1;
        pause(tries).await;
    }
}

fn is_of(event: &Event, project: Option<ProjectId>) -> bool {
    project.is_none_or(|project| event.project_id == Some(project))
}

fn show(context: &Context, event: &Event) -> Result<(), Failure> {
    if context.output.is_json() { context.output.record(event) } else { context.output.line(&line(event)) }
}

fn line(event: &Event) -> String {
    let mut line = format!("{} {:>5}  {}", event.at.format("%Y-%m-%d %H:%M:%S"), event.seq, event.name);
    let subjects = [
        event.deployment_id.map(|id| id.to_string()),
        event.machine_id.map(|id| id.to_string()),
        event.incarnation.map(|incarnation| format!("start {incarnation}")),
    ];
    for subject in subjects.into_iter().flatten() {
        line.push_str(&format!("  {subject}"));
    }
    let is_empty = event.data.as_object().is_some_and(serde_json::Map::is_empty) || event.data.is_null();
    if !is_empty {
        line.push_str(&format!("  {}", event.data));
    }
    line
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_event_is_one_line() {
        let event: Event = serde_json::from_value(serde_json::json!({
            "seq": 12, "at": "2026-11-21T20:00:00.5Z", "name": "deployment.running",
            "deploymentId": "dep_01h455vb4pex5vsknk084sn02q", "incarnation": 2, "data": {"detail": "it listens"},
        }))
        .unwrap();
        insta::assert_snapshot!(line(&event), @r#"2026-11-21 20:00:00    12  deployment.running  dep_01h455vb4pex5vsknk084sn02q  start 2  {"detail":"it listens"}"#);
    }
}
