//! TLS, and what comes before HTTP.

use std::sync::Arc;

use http::StatusCode;
use ingress::{Endpoint, Listen};
use rustls_pki_types::ServerName;
use serve::tls::{DevelopmentCa, Tls, TlsSettings};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tokio_rustls::rustls::pki_types as rustls_pki_types;
use tokio_rustls::rustls::{ClientConfig, RootCertStore};

use crate::origin::{HELLO, Origin};
use crate::world::{World, within};

struct Secured {
    world: World,
    client: Arc<ClientConfig>,
    _folder: tempfile::TempDir,
}

async fn secured(set: impl FnOnce(&mut ingress::IngressConfig)) -> Secured {
    use rustls_pki_types::pem::PemObject;
    let folder = tempfile::tempdir().unwrap();
    let ca = DevelopmentCa::open(folder.path(), &["localhost".to_owned()]).unwrap();
    let mut roots = RootCertStore::empty();
    roots.add(rustls_pki_types::CertificateDer::from_pem_file(ca.path()).unwrap()).unwrap();
    let settings = TlsSettings { development: Some(Arc::new(ca)), ..TlsSettings::default() };
    let tls = Tls::new(settings).unwrap();
    let world = World::with(|config| {
        config.listen[0].tls = Some(tls);
        set(config);
    })
    .await;
    let provider = Arc::new(tokio_rustls::rustls::crypto::ring::default_provider());
    let client = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    Secured { world, client: Arc::new(client), _folder: folder }
}

impl Secured {
    async fn connect(&self, name: &str, protocols: &[&str]) -> TlsStream<TcpStream> {
        let mut config = ClientConfig::clone(&self.client);
        config.alpn_protocols = protocols.iter().map(|name| name.as_bytes().to_vec()).collect();
        let stream = within(TcpStream::connect(self.world.address)).await.unwrap();
        let name = ServerName::try_from(name.to_owned()).unwrap();
        within(TlsConnector::from(Arc::new(config)).connect(name, stream)).await.unwrap()
    }
}

#[tokio::test]
async fn both_versions_are_served_over_tls() {
    let secured = secured(|_| ()).await;
    let origin = Origin::saying(HELLO).await;
    let shop = secured.world.deploy("shop", origin.address);
    let mut plain = secured.connect("shop.localhost", &["http/1.1"]).await;
    within(plain.write_all(b"GET / HTTP/1.1\r\nHost: shop.localhost\r\nConnection: close\r\n\r\n"))
        .await
        .unwrap();
    let mut answer = String::new();
    within(plain.read_to_string(&mut answer)).await.unwrap();
    assert!(answer.starts_with("HTTP/1.1 200 OK\r\n") && answer.ends_with("hello"), "{answer}");
    assert_eq!(origin.last().all("x-forwarded-proto"), ["https"]);
    let stream = secured.connect("shop.localhost", &["h2", "http/1.1"]).await;
    let (mut send, connection) = within(h2::client::handshake(stream)).await.unwrap();
    tokio::spawn(connection);
    let mut ask = async |host: &str| {
        let request = http::Request::get(format!("https://{host}/")).body(()).unwrap();
        let (answer, _): (_, h2::SendStream<bytes::Bytes>) = send.send_request(request, true).unwrap();
        within(answer).await.unwrap().status()
    };
    assert_eq!(ask("shop.localhost").await, StatusCode::OK);
    // One that the certificate has may share the connection, another may not.
    assert_eq!(ask("other.localhost").await, StatusCode::NOT_FOUND);
    secured.world.routes.upsert_alias(ingress::Alias {
        host: "shop.example.com".to_owned(),
        target: ingress::AliasTarget::Deployment(shop.deployment),
        service: None,
    });
    assert_eq!(ask("shop.example.com").await, StatusCode::MISDIRECTED_REQUEST);
    assert_eq!(origin.count(), 2);
}

#[tokio::test]
async fn cleartext_is_sent_to_tls_where_that_is_wanted() {
    let world = World::with(|config| config.listen[0].redirect_to_https = Some(8443)).await;
    let origin = Origin::saying(HELLO).await;
    world.deploy("shop", origin.address);
    let reply = world.ask("POST /a?b HTTP/1.1\r\nHost: SHOP.localhost:80\r\nContent-Length: 0\r\n\r\n").await;
    assert_eq!((reply.status, reply.all("location")), (308, vec!["https://shop.localhost:8443/a?b"]));
    assert_eq!(origin.count(), 0);
}

#[tokio::test]
async fn a_proxy_names_the_client() {
    let world = World::with(|config| {
        let second = Listen { proxy_protocol: true, ..config.listen[0].clone() };
        config.listen = vec![second];
    })
    .await;
    let origin = Origin::saying(HELLO).await;
    let shop = world.deploy("shop", origin.address);
    world.lease(&shop, "web", Endpoint::Tcp(origin.address));
    let mut client = world.connect().await;
    // PROXY, TCP over IPv4: from 203.0.113.7:4000 to 192.0.2.1:443.
    client.send(b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x0c\xcb\0\x71\x07\xc0\0\x02\x01\x0f\xa0\x01\xbb").await;
    client.send("GET / HTTP/1.1\r\nHost: shop.localhost\r\n\r\n").await;
    assert_eq!(client.reply().await.text(), "hello");
    assert_eq!(origin.last().all("x-forwarded-for"), ["203.0.113.7"]);
    // Without one there is nobody to talk to.
    let mut client = world.connect().await;
    client.send("GET / HTTP/1.1\r\nHost: shop.localhost\r\n\r\n").await;
    assert!(client.is_closed().await);
    assert_eq!(origin.count(), 1);
}

#[tokio::test]
async fn who_says_nothing_is_let_go() {
    let secured = secured(|config| config.header_timeout = std::time::Duration::from_millis(100)).await;
    let mut client = secured.world.connect().await;
    assert!(client.is_closed().await);
    let mut client = secured.world.connect().await;
    client.send("\x16\x03").await;
    assert!(client.is_closed().await);
}
