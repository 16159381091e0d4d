//! `xtask-database`: what xtask needs of databases, in a program of its own, so that `./x` itself is
//! quick to compile.
//!
//! `prepare` prints the address of a database made by the migrations; `stop` ends the Postgres that the
//! tests share.

#![expect(clippy::print_stdout, reason = "a command line program")]

use anyhow::{Result, bail};

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<()> {
    match std::env::args().nth(1).as_deref() {
        Some("prepare") => println!("{}", test_kit::database::prepare_database().await?),
        Some("stop") => test_kit::database::stop_test_cluster().await?,
        other => bail!("{other:?} is nothing to do: say `prepare` or `stop`"),
    }
    Ok(())
}
