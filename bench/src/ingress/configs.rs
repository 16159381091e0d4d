//! What each peer is told: the same work, written as its own documentation would write it.
//!
//! No access logs, connections to clients and upstream kept as long as possible, limits raised above what is asked,
//! one worker. Forwarding headers as the peer makes them by itself, or by the lines that everyone copies.

use std::fmt::Write as _;
use std::path::Path;

use serde_json::{Value, json};

use super::names;

/// What all of them need to know; ports are on 127.0.0.1.
#[derive(Debug, Clone, Copy)]
pub struct Task<'a> {
    pub port: u16,
    pub tls_port: u16,
    pub upstream: u16,
    pub routes: usize,
    /// Certificate chain and key, PEM.
    pub certificate: &'a Path,
    pub key: &'a Path,
    /// Both in one file, as HAProxy wants it.
    pub combined: &'a Path,
    /// A folder of its own.
    pub folder: &'a Path,
    /// Client connections that must be possible.
    pub connections: usize,
    /// The Wasm filter, where there should be one.
    pub filter: Option<&'a Path>,
}

/// One route: by `server_name`, the cheapest way. More: by a `map` from host to upstream.
pub fn nginx(task: &Task<'_>) -> String {
    let Task { port, tls_port, upstream, connections, .. } = task;
    let folder = task.folder.display();
    let (maps, target) = if task.routes == 1 {
        (String::new(), "app")
    } else {
        let mut map = format!(
            "  map_hash_max_size {};\n  map_hash_bucket_size 128;\n  map $host $target {{\n",
            (task.routes * 2).max(2048)
        );
        for name in names(task.routes) {
            let _ = writeln!(map, "    {name} app;");
        }
        (format!("{map}  }}\n"), "$target")
    };
    format!(
        "daemon off;
worker_processes 1;
worker_rlimit_nofile {};
pid {folder}/nginx.pid;
error_log {folder}/error.log error;
events {{ worker_connections {}; }}
http {{
  access_log off;
  client_max_body_size 0;
  keepalive_timeout 3600s;
  keepalive_requests 1000000000;
  client_body_temp_path {folder}/body;
  proxy_temp_path {folder}/proxy;
  fastcgi_temp_path {folder}/fastcgi;
  uwsgi_temp_path {folder}/uwsgi;
  scgi_temp_path {folder}/scgi;
{maps}  upstream app {{
    server 127.0.0.1:{upstream};
    keepalive 1024;
    keepalive_requests 1000000000;
    keepalive_timeout 3600s;
  }}
  server {{
    listen 127.0.0.1:{port} backlog=4096;
    listen 127.0.0.1:{tls_port} ssl backlog=4096;
    server_name bench.localhost;
    ssl_certificate {};
    ssl_certificate_key {};
    ssl_protocols TLSv1.2 TLSv1.3;
    proxy_http_version 1.1;
    proxy_set_header Host $host;
    proxy_set_header X-Forwarded-For $proxy_add_x_forwarded_for;
    proxy_set_header X-Forwarded-Proto $scheme;
    location / {{
      proxy_set_header Connection \"\";
      proxy_pass http://{target};
    }}
    location = /ws {{
      proxy_set_header Upgrade $http_upgrade;
      proxy_set_header Connection \"upgrade\";
      proxy_read_timeout 3600s;
      proxy_pass http://{target};
    }}
  }}
}}
",
        2 * connections + 400,
        2 * connections + 300,
        task.certificate.display(),
        task.key.display(),
    )
}

/// Its configuration, and the map from host to backend (`hosts.map` in its folder).
pub fn haproxy(task: &Task<'_>) -> (String, String) {
    let Task { port, tls_port, upstream, connections, .. } = task;
    let mut map = String::new();
    for name in names(task.routes) {
        let _ = writeln!(map, "{name} app");
    }
    let route = if task.routes == 1 {
        "use_backend app if { req.hdr(host) -i bench.localhost }".to_owned()
    } else {
        format!("use_backend %[req.hdr(host),lower,map_str({})]", task.folder.join("hosts.map").display())
    };
    let config = format!(
        "global
  nbthread 1
  maxconn {connections}
  ssl-default-bind-options ssl-min-ver TLSv1.2
defaults
  mode http
  timeout connect 5s
  timeout client 1h
  timeout server 1h
  timeout http-keep-alive 1h
  timeout tunnel 1h
  option forwardfor
frontend all
  maxconn {connections}
  bind 127.0.0.1:{port} backlog 4096
  bind 127.0.0.1:{tls_port} backlog 4096 ssl crt {} alpn http/1.1
  {route}
backend app
  http-reuse always
  server upstream 127.0.0.1:{upstream}
",
        task.combined.display(),
    );
    (config, map)
}

/// One virtual host a route.
pub fn envoy(task: &Task<'_>) -> Value {
    let hosts: Vec<Value> = names(task.routes)
        .enumerate()
        .map(|(number, name)| {
            json!({
                "name": format!("h{number}"),
                "domains": [name],
                "routes": [{ "match": { "prefix": "/" }, "route": { "cluster": "app", "timeout": "0s" } }],
            })
        })
        .collect();
    let mut filters = Vec::new();
    if let Some(filter) = task.filter {
        filters.push(json!({
            "name": "decide",
            "typed_config": {
                "@type": "type.googleapis.com/envoy.extensions.filters.http.wasm.v3.Wasm",
                "config": {
                    "name": "decide",
                    "vm_config": {
                        "runtime": "envoy.wasm.runtime.v8",
                        "code": { "local": { "filename": filter } },
                    },
                },
            },
        }));
    }
    filters.push(json!({
        "name": "envoy.filters.http.router",
        "typed_config": { "@type": "type.googleapis.com/envoy.extensions.filters.http.router.v3.Router" },
    }));
    let manager = json!({
        "name": "envoy.filters.network.http_connection_manager",
        "typed_config": {
            "@type":
                "type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager",
            "stat_prefix": "bench",
            "codec_type": "HTTP1",
            "use_remote_address": true,
            "stream_idle_timeout": "0s",
            "upgrade_configs": [{ "upgrade_type": "websocket" }],
            "route_config": { "name": "hosts", "virtual_hosts": hosts },
            "http_filters": filters,
        },
    });
    let address = |port: u16| json!({ "socket_address": { "address": "127.0.0.1", "port_value": port } });
    let mut listeners = vec![json!({
        "name": "plain",
        "address": address(task.port),
        "tcp_backlog_size": 4096,
        "filter_chains": [{ "filters": [manager.clone()] }],
    })];
    // The table would be there twice: only the first instance is asked by TLS.
    if task.routes == 1 {
        listeners.push(json!({
            "name": "secure",
            "address": address(task.tls_port),
            "tcp_backlog_size": 4096,
            "filter_chains": [{
                "filters": [manager],
                "transport_socket": {
                    "name": "envoy.transport_sockets.tls",
                    "typed_config": {
                        "@type": "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.DownstreamTlsContext",
                        "common_tls_context": {
                            "alpn_protocols": ["http/1.1"],
                            "tls_params": { "tls_maximum_protocol_version": "TLSv1_3" },
                            "tls_certificates": [{
                                "certificate_chain": { "filename": task.certificate },
                                "private_key": { "filename": task.key },
                            }],
                        },
                    },
                },
            }],
        }));
    }
    let limit = 1_000_000;
    json!({
        "static_resources": {
            "listeners": listeners,
            "clusters": [{
                "name": "app",
                "type": "STATIC",
                "connect_timeout": "5s",
                "circuit_breakers": { "thresholds": [{
                    "max_connections": limit, "max_pending_requests": limit, "max_requests": limit,
                }] },
                "load_assignment": {
                    "cluster_name": "app",
                    "endpoints": [{ "lb_endpoints": [{ "endpoint": { "address": address(task.upstream) } }] }],
                },
            }],
        },
        "layered_runtime": { "layers": [{
            "name": "limits",
            "static_layer": { "overload": { "global_downstream_max_connections": 1_000_000 } },
        }] },
    })
}

/// One route a host, as its own Caddyfile becomes.
pub fn caddy(task: &Task<'_>) -> Value {
    let proxy = json!({
        "handler": "reverse_proxy",
        "transport": {
            "protocol": "http",
            "keep_alive": { "max_idle_conns_per_host": 1024, "idle_timeout": "1h" },
        },
        "upstreams": [{ "dial": format!("127.0.0.1:{}", task.upstream) }],
    });
    let routes: Vec<Value> = names(task.routes)
        .map(|name| json!({ "match": [{ "host": [name] }], "handle": [proxy], "terminal": true }))
        .collect();
    let mut servers = json!({ "plain": {
        "listen": [format!("127.0.0.1:{}", task.port)],
        "routes": routes,
        "idle_timeout": "1h",
        "automatic_https": { "disable": true },
    } });
    if task.routes == 1 {
        servers["secure"] = json!({
            "listen": [format!("127.0.0.1:{}", task.tls_port)],
            "routes": routes,
            "idle_timeout": "1h",
            "automatic_https": { "disable": true },
            "tls_connection_policies": [{ "alpn": ["http/1.1"] }],
        });
    }
    json!({
        "admin": { "disabled": true, "config": { "persist": false } },
        "logging": { "logs": { "default": { "level": "ERROR" } } },
        "apps": {
            "http": { "servers": servers },
            "tls": { "certificates": { "load_files": [{ "certificate": task.certificate, "key": task.key }] } },
        },
    })
}

/// The stand of `host/ingress/examples`; `tls` and `adapter` where it knows of them.
pub fn stand(task: &Task<'_>, tls: bool, adapter: Option<&Path>) -> Value {
    let hour = 3_600_000;
    let mut stand = json!({
        "listen": [format!("127.0.0.1:{}", task.port)],
        "workers": 1,
        "baseDomain": "localhost",
        "routes": [{ "slug": "bench", "upstream": format!("127.0.0.1:{}", task.upstream) }],
        "otherRoutes": task.routes - 1,
        "limits": { "keepAliveTimeout": hour, "maxConnections": 2 * task.connections },
    });
    if tls {
        stand["tlsListen"] = json!([format!("127.0.0.1:{}", task.tls_port)]);
        stand["certificates"] = json!([{ "certificate": task.certificate, "key": task.key }]);
    }
    if let Some(adapter) = adapter {
        stand["adapter"] = json!(adapter);
        // What it needs in order to decide anything: a share of the requests is for the next version, here the same
        // service; each request gets a header that says what was decided.
        stand["adapterConfig"] = json!({ "canary": { "service": "web", "percent": 50 } });
    }
    stand
}
