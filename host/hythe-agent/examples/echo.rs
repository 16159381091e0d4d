//! A TCP server for the daemon's tests: gives back what it gets, on `PORT`, until its peer has no more.
//!
//! With `LATE` in its environment it also listens on a port of its own choice and writes its number into
//! that file.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};

fn main() -> std::io::Result<()> {
    if let Ok(late) = std::env::var("LATE") {
        let listener = TcpListener::bind("127.0.0.1:0")?;
        let port = listener.local_addr()?.port();
        std::fs::write(format!("{late}.new"), port.to_string())?;
        std::fs::rename(format!("{late}.new"), late)?;
        std::thread::spawn(move || serve(&listener));
    }
    let port: u16 = std::env::var("PORT").ok().and_then(|port| port.parse().ok()).unwrap_or(0);
    serve(&TcpListener::bind(("127.0.0.1", port))?)
}

fn serve(listener: &TcpListener) -> std::io::Result<()> {
    loop {
        let (stream, _) = listener.accept()?;
        std::thread::spawn(move || echo(stream));
    }
}

/// The end of input is only answered when all has been given back.
fn echo(mut stream: TcpStream) -> std::io::Result<()> {
    let mut buffer = [0; 16 * 1024];
    loop {
        let count = stream.read(&mut buffer)?;
        if count == 0 {
            stream.write_all(b"<end>")?;
            return stream.shutdown(Shutdown::Write);
        }
        stream.write_all(&buffer[..count])?;
    }
}
