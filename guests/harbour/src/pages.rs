//! The pages, rendered here: they say all without a script, and stay current with one.

use std::fmt::{self, Write as _};
use std::sync::Arc;

use axum::extract::{Path, State};
use axum::http::{HeaderMap, StatusCode, Uri, header};
use axum::response::{Html, IntoResponse, Response};
use chrono::{DateTime, Utc};

use crate::api::number;
use crate::app::App;
use crate::board::{self, BERTHS, Boat, Kind};
use crate::error::Error;
use crate::tide::{self, Tide};

/// Text in a page: what has a meaning in HTML is escaped.
struct Text<T>(T);

impl<T: fmt::Display> fmt::Display for Text<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for c in self.0.to_string().chars() {
            match c {
                '&' => f.write_str("&amp;")?,
                '<' => f.write_str("&lt;")?,
                '>' => f.write_str("&gt;")?,
                '"' => f.write_str("&quot;")?,
                '\'' => f.write_str("&#39;")?,
                c => f.write_char(c)?,
            }
        }
        Ok(())
    }
}

/// `GET /`
pub async fn front(State(app): State<Arc<App>>) -> Response {
    let kinds = list(&Kind::ALL, |kind| format!("<option>{}</option>", kind.name()));
    let messages = app.board.read(|state| {
        list(&state.messages, |message| {
            format!(
                "<li data-id=\"{}\"><b>{}</b> {}</li>",
                message.id,
                Text(&message.author),
                Text(&message.text)
            )
        })
    });
    let content = format!(
        r##"<section id="board" aria-live="polite">{board}</section>
<div class="columns">
<section class="card">
  <h2>Hail a boat</h2>
  <form id="arrive">
    <label>Name <input name="name" maxlength="40" required placeholder="Kittiwake"></label>
    <label>Kind <select name="kind">{kinds}</select></label>
    <label>Length <span class="unit"><input name="length" type="number" min="1" max="60" step="0.1" value="9.5" required> m</span></label>
    <button>Arrive</button>
    <output></output>
  </form>
</section>
<section class="card quay">
  <h2>On the quay <span id="people" class="pill"></span></h2>
  <ol id="messages">{messages}</ol>
  <form id="say">
    <input name="text" maxlength="500" required placeholder="Say something" aria-label="Say something" autocomplete="off">
    <button>Say</button>
    <output></output>
  </form>
</section>
</div>"##,
        board = board_html(&app),
    );
    page(&app, StatusCode::OK, "Harbour", &content)
}

/// `GET /fragments/board`: the part of the front page that changes.
pub async fn board_fragment(State(app): State<Arc<App>>) -> Response {
    ([(header::CACHE_CONTROL, "no-store")], Html(board_html(&app))).into_response()
}

fn board_html(app: &App) -> String {
    let Tide { height, rising } = tide::at(Utc::now());
    let now = Utc::now();
    app.board.read(|state| {
        let berths = list(&BERTHS, |berth| match state.at(berth.name) {
            Some(boat) => format!(
                "<li class=\"berth taken\"><span class=\"place\">{}</span>{}</li>",
                berth.name,
                boat_html(boat, now, "<button data-do=\"cast-off\">Cast off</button>")
            ),
            None => format!(
                "<li class=\"berth\"><span class=\"place\">{}</span><span class=\"free\">free</span>\
                 <small>up to {} m</small></li>",
                berth.name, berth.max_length
            ),
        });
        let waiting: Vec<_> = state.boats.iter().filter(|boat| boat.berth.is_none()).collect();
        let free = |boat: &Boat| {
            let fits =
                BERTHS.iter().filter(|one| state.at(one.name).is_none() && one.max_length >= boat.length);
            fits.map(|berth| format!("<option>{}</option>", berth.name)).collect::<String>()
        };
        let roads = list(&waiting, |boat| {
            let actions = match free(boat) {
                none if none.is_empty() => "<small>no berth that fits</small>".to_owned(),
                some => format!(
                    "<select aria-label=\"Berth\">{some}</select><button data-do=\"moor\">Moor</button>"
                ),
            };
            let actions = format!("{actions}<button data-do=\"depart\" class=\"quiet\">Leave</button>");
            format!("<li class=\"berth\">{}</li>", boat_html(boat, now, &actions))
        });
        let taken = state.boats.len() - waiting.len();
        format!(
            r#"<div class="facts">
  <p><strong>{taken}<small>/{all}</small></strong> berths taken</p>
  <p><strong>{roads_count}</strong> in the roads</p>
  <p><strong id="tide">{height:.2}<small> m {way}</small></strong> tide</p>
</div>
<h2>Berths</h2><ul class="berths">{berths}</ul>
<h2>In the roads</h2><ul class="berths roads">{roads}</ul>"#,
            all = BERTHS.len(),
            roads_count = waiting.len(),
            way = if rising { "rising" } else { "falling" },
            roads = if waiting.is_empty() { "<li class=\"free\">nobody waits</li>" } else { &roads },
        )
    })
}

fn boat_html(boat: &Boat, now: DateTime<Utc>, actions: &str) -> String {
    format!(
        "<span class=\"boat\" data-boat=\"{id}\"><i class=\"kind {kind}\" aria-hidden=\"true\"></i>\
         <a href=\"/boats/{id}\">{name}</a><small>{kind}, {length} m, {since}</small>\
         <span class=\"actions\">{actions}</span></span>",
        id = boat.id,
        kind = boat.kind.name(),
        name = Text(&boat.name),
        length = boat.length,
        since = since(boat.arrived_at, now),
    )
}

/// `GET /boats/{id}`
pub async fn boat(State(app): State<Arc<App>>, Path(id): Path<String>, headers: HeaderMap) -> Response {
    let found = number(&id).and_then(|id| app.board.read(|state| state.boat(id).cloned()));
    let boat = match found {
        Ok(boat) => boat,
        Err(error) => return refused(&app, &headers, error),
    };
    let entries = app.board.read(|state| {
        let its: Vec<_> =
            state.log.iter().rev().filter(|entry| entry.boat == Some(boat.id)).cloned().collect();
        list(&its, entry_html)
    });
    let content = format!(
        r#"<section class="card">
  <h2><i class="kind {kind}" aria-hidden="true"></i> {name}</h2>
  <dl><dt>Kind</dt><dd>{kind}</dd><dt>Length</dt><dd>{length} m</dd>
  <dt>Lies</dt><dd>{berth}</dd><dt>Arrived</dt><dd>{arrived}</dd></dl>
  <h3>What it did</h3><ol class="log">{entries}</ol>
</section>"#,
        kind = boat.kind.name(),
        name = Text(&boat.name),
        length = boat.length,
        berth =
            boat.berth.as_deref().map_or_else(|| "in the roads".to_owned(), |berth| format!("at {berth}")),
        arrived = boat.arrived_at.format("%-d %B, %H:%M UTC"),
    );
    page(&app, StatusCode::OK, &boat.name, &content)
}

/// `GET /log`
pub async fn log(State(app): State<Arc<App>>) -> Response {
    let entries =
        app.board.read(|state| list(&state.log.iter().rev().cloned().collect::<Vec<_>>(), entry_html));
    let content = format!(
        "<section class=\"card\"><h2>The harbour's log</h2><ol class=\"log\">{entries}</ol></section>"
    );
    page(&app, StatusCode::OK, "Log", &content)
}

fn entry_html(entry: &board::Entry) -> String {
    format!(
        "<li><time datetime=\"{}\">{}</time> {}</li>",
        entry.at.to_rfc3339(),
        entry.at.format("%-d %b %H:%M"),
        Text(&entry.text)
    )
}

/// What no route takes.
pub async fn not_found(State(app): State<Arc<App>>, uri: Uri, headers: HeaderMap) -> Response {
    refused(&app, &headers, Error::not_found(format!("there is nothing at {}", uri.path())))
}

/// An error as a page to those who want one, as JSON to others.
fn refused(app: &App, headers: &HeaderMap, error: Error) -> Response {
    let wants_page = headers
        .get(header::ACCEPT)
        .and_then(|accept| accept.to_str().ok())
        .is_some_and(|accept| accept.contains("text/html"));
    if !wants_page {
        return error.into_response();
    }
    let content = format!(
        "<section class=\"card\"><h2>Not here</h2><p>{}.</p><p><a href=\"/\">Back to the harbour</a></p></section>",
        Text(&error.message)
    );
    page(app, error.status, "Not here", &content)
}

fn page(app: &App, status: StatusCode, title: &str, content: &str) -> Response {
    let html = format!(
        r#"<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{title}</title>
<link rel="icon" href="{icon}">
<link rel="stylesheet" href="{style}">
<script type="module" src="{script}"></script>
</head>
<body>
<header><h1><a href="/">Harbour</a></h1><nav><a href="/">Board</a><a href="/log">Log</a></nav>
<span id="live" class="pill" title="Whether this page hears of changes">not live</span></header>
<main>{content}</main>
<footer>Run <code>{run}</code>, process {pid}. <a href="/api/board">As JSON</a></footer>
</body>
</html>
"#,
        title = Text(title),
        icon = app.assets.url("harbour.svg"),
        style = app.assets.url("harbour.css"),
        script = app.assets.url("harbour.js"),
        run = Text(&app.run),
        pid = std::process::id(),
    );
    (status, [(header::CACHE_CONTROL, "no-store")], Html(html)).into_response()
}

fn list<'i, T: 'i>(items: impl IntoIterator<Item = &'i T>, html: impl Fn(&T) -> String) -> String {
    items.into_iter().map(html).collect()
}

/// How long ago, as a person says it.
fn since(then: DateTime<Utc>, now: DateTime<Utc>) -> String {
    match (now - then).num_minutes() {
        ..1 => "just now".to_owned(),
        minutes @ 1..60 => format!("{minutes} min"),
        minutes @ 60..1_440 => format!("{} h", minutes / 60),
        minutes => format!("{} d", minutes / 1_440),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_people_type_is_no_html() {
        assert_eq!(Text("<b title='x'>\"&").to_string(), "&lt;b title=&#39;x&#39;&gt;&quot;&amp;");
    }

    #[test]
    fn times_are_said_shortly() {
        let after =
            |minutes| since(DateTime::UNIX_EPOCH, DateTime::UNIX_EPOCH + chrono::Duration::minutes(minutes));
        assert_eq!(after(-5), "just now");
        assert_eq!(after(59), "59 min");
        assert_eq!(after(125), "2 h");
        assert_eq!(after(3_000), "2 d");
    }
}
