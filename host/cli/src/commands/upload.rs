//! Packs a folder and gives it to the host, which keeps it under its SHA-256.

use std::path::Path;

use futures_util::StreamExt;
use reqwest::header::{CONTENT_LENGTH, CONTENT_TYPE};
use reqwest::{Body, Method};
use tokio_util::io::ReaderStream;

use super::Context;
use crate::archive::{self, Archive, Options};
use crate::client::{may_repeat, pause};
use crate::failure::{ExitStatus, Failure};
use crate::words::size;

const TRIES: u32 = 4;
/// Read from the archive and sent at once, in bytes.
const CHUNK: usize = 64 * 1024;

/// Packs the folder on a thread of its own.
pub(super) async fn pack(context: &Context, folder: &Path, options: Options) -> Result<Archive, Failure> {
    let progress = context.output.spinner("packing");
    let bar = progress.bar();
    let folder = folder.to_owned();
    let packed = tokio::task::spawn_blocking(move || {
        let total = std::cell::Cell::new((0_u64, 0_u64));
        archive::pack(&folder, options, &|bytes| {
            let (files, sum) = total.get();
            total.set((files + 1, sum + bytes));
            bar.set_message(format!("packing {}, {}", files_of(files + 1), size(sum + bytes)));
        })
    });
    let archive = packed.await.map_err(|error| Failure::other(format!("packing broke off: {error}")))??;
    drop(progress);
    for skipped in &archive.skipped {
        context.output.note(&format!("left out {}: it is no file", skipped.display()));
    }
    context.output.note(&format!(
        "packed {}, {} ({} compressed)",
        files_of(archive.files),
        size(archive.unpacked_bytes),
        size(archive.bytes)
    ));
    Ok(archive)
}

/// Gives it to the host, unless that has it. Safe to repeat: its name is its content.
pub(super) async fn upload(context: &Context, archive: &Archive) -> Result<(), Failure> {
    let client = &context.client;
    let path = format!("/v1/sources/{}", archive.sha256);
    let head = client.send(client.request(Method::HEAD, &path)?).await;
    match head {
        Ok(_) => {
            context.output.note("the host has it already");
            return Ok(());
        }
        Err(failure) if failure.exit == ExitStatus::NotFound => {}
        Err(failure) => return Err(failure),
    }
    let mut tries = 0;
    loop {
        tries += 1;
        let progress = context.output.transfer("uploading", archive.bytes);
        let bar = progress.bar();
        let file = archive.open().map_err(|error| {
            Failure::other(format!("the packed archive is gone: {error}"))
                .hint("something empties the temporary folder; try again")
        })?;
        let stream =
            ReaderStream::with_capacity(tokio::fs::File::from_std(file), CHUNK).inspect(move |chunk| {
                if let Ok(chunk) = chunk {
                    bar.inc(chunk.len() as u64);
                }
            });
        let request = client
            .request(Method::PUT, &path)?
            .header(CONTENT_TYPE, "application/zstd")
            .header(CONTENT_LENGTH, archive.bytes)
            .body(Body::wrap_stream(stream));
        match client.send(request).await {
            Ok(_) => return Ok(()),
            Err(failure) if tries < TRIES && may_repeat(&failure) => pause(tries).await,
            Err(failure) if failure.code.as_deref() == Some(api_types::code::TOO_LARGE) => {
                return Err(failure.hint(format!("name what is not needed in {}", archive::IGNORE_FILE)));
            }
            Err(failure) => return Err(failure),
        }
    }
}

fn files_of(count: u64) -> String {
    if count == 1 { "1 file".to_owned() } else { format!("{count} files") }
}
