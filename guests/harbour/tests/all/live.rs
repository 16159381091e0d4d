//! What comes by itself: events and the quay.

use futures_util::{SinkExt as _, StreamExt as _};
use serde_json::{Value, json};
use tokio::net::TcpStream;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::{MaybeTlsStream, WebSocketStream, connect_async};

use crate::client::{event, event_named, get, post, send};
use crate::program::Program;

type Socket = WebSocketStream<MaybeTlsStream<TcpStream>>;

async fn join(address: &str, name: &str) -> Socket {
    connect_async(format!("ws://{address}/ws?name={name}")).await.unwrap().0
}

/// The next message of that type.
async fn heard(socket: &mut Socket, kind: &str) -> Value {
    loop {
        if let Message::Text(text) = socket.next().await.unwrap().unwrap() {
            let message: Value = serde_json::from_str(&text).unwrap();
            if message["type"] == kind {
                return message;
            }
        }
    }
}

#[test]
fn changes_are_told_and_missed_ones_again() {
    let folder = tempfile::tempdir().unwrap();
    let harbour = Program::start(folder.path());
    let at = harbour.address.as_str();
    let mut events = get(at, "/api/events");
    assert_eq!(events.header("content-type"), Some("text/event-stream"));
    let (name, hello) = event(&mut events);
    assert_eq!(name, "hello");
    assert_eq!(hello["run"], get(at, "/api/info").json()["run"]);

    let boat =
        |name: &str| post(at, "/api/boats", &json!({"name": name, "kind": "ferry", "length": 30})).status;
    assert_eq!(boat("One"), 201);
    assert_eq!(event_named(&mut events, "arrived")["name"], "One");
    drop(events);
    assert_eq!(boat("Two"), 201);
    let mut events = send(at, "GET", "/api/events", "last-event-id: 0\r\n", b"");
    assert_eq!(event_named(&mut events, "arrived")["name"], "One");
    assert_eq!(event_named(&mut events, "arrived")["name"], "Two");
    // From another run of the program: look anew.
    let mut events = send(at, "GET", "/api/events", "last-event-id: 12345\r\n", b"");
    assert_eq!(event_named(&mut events, "gap"), json!({}));
}

#[tokio::test]
async fn people_on_the_quay_hear_each_other() {
    let folder = tempfile::tempdir().unwrap();
    let harbour = Program::start(folder.path());
    let at = harbour.address.clone();
    let mut ada = join(&at, "Ada").await;
    assert_eq!(heard(&mut ada, "people").await["people"], json!(["Ada"]));
    let mut bo = join(&at, "Bo").await;
    assert_eq!(heard(&mut ada, "people").await["people"], json!(["Ada", "Bo"]));

    bo.send(Message::text(json!({"type": "say", "text": "Ahoy"}).to_string())).await.unwrap();
    for socket in [&mut ada, &mut bo] {
        let message = heard(socket, "said").await["message"].clone();
        assert_eq!((&message["author"], &message["text"]), (&json!("Bo"), &json!("Ahoy")));
    }
    bo.send(Message::text(json!({"type": "say", "text": " "}).to_string())).await.unwrap();
    let refusal = heard(&mut bo, "refused").await;
    assert_eq!(refusal["message"], "text is empty: give it 1 to 500 characters");
    bo.send(Message::text("ahoy")).await.unwrap();
    assert!(heard(&mut bo, "refused").await["message"].as_str().unwrap().starts_with("not understood"));

    bo.close(None).await.unwrap();
    assert_eq!(heard(&mut ada, "people").await["people"], json!(["Ada"]));
    // What was said is on the board.
    let messages = tokio::task::spawn_blocking(move || get(&at, "/api/messages").json()).await.unwrap();
    assert_eq!(messages[1]["text"], "Ahoy");
}

#[tokio::test]
async fn binary_messages_come_back() {
    let folder = tempfile::tempdir().unwrap();
    let harbour = Program::start(folder.path());
    let mut socket = join(&harbour.address, "Ada").await;
    let bytes = vec![7_u8; 300_000];
    socket.send(Message::binary(bytes.clone())).await.unwrap();
    loop {
        if let Message::Binary(answer) = socket.next().await.unwrap().unwrap() {
            assert_eq!(answer, bytes);
            break;
        }
    }
}

#[tokio::test]
async fn nobody_comes_without_a_name() {
    let folder = tempfile::tempdir().unwrap();
    let harbour = Program::start(folder.path());
    for query in ["", "?name=", "?name=%0A"] {
        let error = connect_async(format!("ws://{}/ws{query}", harbour.address)).await.unwrap_err();
        assert!(error.to_string().contains("40") || error.to_string().contains("422"), "{error}");
    }
}
