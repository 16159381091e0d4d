//! Runs projects as processes beside the host, through the daemon that it keeps there: the grant `local`.

use daemon_driver::host::{self, Deployment};
use daemon_driver::types::{Error, Place, Request, Response, Upstream};
use daemon_driver::{Driver, Runtime};
use serde_json::Value;

/// The daemon's address, and by that all ports beside it.
const GRANT: &str = "local";

/// The daemon beside the host: always there, or in a passing fault.
struct Local;

fn place(port: Option<u16>) -> Upstream {
    Upstream::Granted(Place { grant: GRANT.to_owned(), address: None, port })
}

impl Runtime for Local {
    const TYPE: &'static str = "process";
    const SUMMARY: &'static str = "Processes beside the host.";
    const GRANTS: &'static [(&'static str, &'static str)] = &[(
        GRANT,
        "The daemon that runs processes beside the host, and the local ports that they listen on.",
    )];

    fn own_field() -> Option<(&'static str, Value)> {
        None
    }

    fn reach(_: &Deployment) -> Result<Option<Self>, Error> {
        Ok(Some(Self))
    }

    fn claim(_: &Deployment, _: Option<Value>) -> Result<Self, Error> {
        Ok(Self)
    }

    fn release(_: &Deployment) -> Result<(), Error> {
        Ok(())
    }

    fn send(&self, request: &Request) -> Result<Response, Error> {
        host::send(GRANT, request)
    }

    fn port(&self, port: u16) -> Upstream {
        place(Some(port))
    }

    fn daemon(&self) -> Upstream {
        place(None)
    }
}

type Adapter = Driver<Local>;
daemon_driver::export!(Adapter);
