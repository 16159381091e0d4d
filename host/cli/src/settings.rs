//! Which host to talk to, and with which token.

use std::env;
use std::path::{Path, PathBuf};

use reqwest::Url;

use crate::args::Globals;
use crate::failure::Failure;

/// File in the host's data directory that holds the token it made at its first start.
const ADMIN_TOKEN_FILE: &str = "admin-token";

/// Where requests go, and what they bear.
#[derive(Clone)]
pub struct Settings {
    pub api: Url,
    pub token: Option<String>,
    /// Places that were looked at, for the message when the host wants a token.
    pub token_places: Vec<String>,
}

impl Settings {
    /// Reads the token from the first place that has one: option or `HYTHE_TOKEN`,
    /// `$XDG_CONFIG_HOME/hythe/token`, and for a host on this machine `admin-token` in its data
    /// directory. The last never leaves the machine: it is left out for an API elsewhere.
    ///
    /// # Errors
    /// Where the address is none, or a token file is there but can't be read.
    pub fn resolve(globals: &Globals) -> Result<Self, Failure> {
        Self::resolve_in(globals, &|name| env::var_os(name).map(PathBuf::from))
    }

    fn resolve_in(globals: &Globals, variable: &dyn Fn(&str) -> Option<PathBuf>) -> Result<Self, Failure> {
        let api = address(&globals.api)?;
        let mut settings = Self { api, token: None, token_places: vec!["--token, HYTHE_TOKEN".to_owned()] };
        if let Some(token) = globals.token.as_deref().map(str::trim).filter(|token| !token.is_empty()) {
            settings.token = Some(token.to_owned());
            return Ok(settings);
        }
        let set = |name: &str| variable(name).filter(|path| !path.as_os_str().is_empty());
        let config = set("XDG_CONFIG_HOME").or_else(|| set("HOME").map(|home| home.join(".config")));
        let mut files: Vec<PathBuf> = config.iter().map(|config| config.join("hythe/token")).collect();
        if is_loopback(&settings.api) {
            let data = set("HYTHE_DATA_DIR").or_else(|| globals.data_dir.clone());
            files.extend(data.iter().map(|data| data.join(ADMIN_TOKEN_FILE)));
        }
        let mut unreadable = None;
        for file in files {
            match read_token(&file) {
                Ok(Some(token)) => {
                    settings.token = Some(token);
                    return Ok(settings);
                }
                Ok(None) => settings.token_places.push(file.display().to_string()),
                Err(failure) => unreadable = unreadable.or(Some(failure)),
            }
        }
        match unreadable {
            Some(failure) => Err(failure),
            None => Ok(settings),
        }
    }
}

fn address(text: &str) -> Result<Url, Failure> {
    let wrong = |why: String| {
        Failure::usage(format!("{text:?} is no address of a host: {why}"))
            .at("--api, HYTHE_API")
            .hint("give it as http://127.0.0.1:8090")
    };
    let url: Url = text.parse().map_err(|error| wrong(format!("{error}")))?;
    match url.scheme() {
        "http" if url.has_host() => Ok(url),
        "https" => Err(wrong("this hythe speaks http only".to_owned())
            .hint("go through a tunnel: ssh -L 8090:127.0.0.1:8090 HOST, then --api http://127.0.0.1:8090")),
        _ => Err(wrong("it must begin with http://".to_owned())),
    }
}

fn is_loopback(url: &Url) -> bool {
    let host = url.host_str().unwrap_or_default().trim_matches(['[', ']']);
    host == "localhost" || host.parse::<std::net::IpAddr>().is_ok_and(|address| address.is_loopback())
}

fn read_token(file: &Path) -> Result<Option<String>, Failure> {
    match std::fs::read_to_string(file) {
        Ok(text) => Ok(Some(text.trim().to_owned()).filter(|token| !token.is_empty())),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(error) if error.kind() == std::io::ErrorKind::NotADirectory => Ok(None),
        Err(error) => Err(Failure::new(
            crate::failure::ExitStatus::Unauthorised,
            format!("can't read the token: {error}"),
        )
        .at(file.display().to_string())
        .hint("run as the user that the host runs as, or give the token in HYTHE_TOKEN")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn globals(api: &str, token: Option<&str>) -> Globals {
        Globals { api: api.to_owned(), token: token.map(str::to_owned), json: false, data_dir: None }
    }

    #[test]
    fn the_first_place_that_has_a_token_counts() {
        let folder = tempfile::tempdir().unwrap();
        let data = folder.path().join("data");
        std::fs::create_dir(&data).unwrap();
        std::fs::create_dir(folder.path().join("hythe")).unwrap();
        std::fs::write(data.join("admin-token"), "from-data\n").unwrap();
        let variable = |name: &str| match name {
            "XDG_CONFIG_HOME" => Some(folder.path().to_owned()),
            "HYTHE_DATA_DIR" => Some(data.clone()),
            _ => None,
        };
        let token = |globals: &Globals| Settings::resolve_in(globals, &variable).unwrap().token;
        let local = globals("http://127.0.0.1:8090", None);
        assert_eq!(token(&local).as_deref(), Some("from-data"));
        assert_eq!(token(&globals("http://[::1]:8090", None)).as_deref(), Some("from-data"));
        // The token of this machine's own host is not shown to another.
        assert_eq!(token(&globals("http://192.0.2.1:8090", None)), None);
        std::fs::write(folder.path().join("hythe/token"), "from-config\n").unwrap();
        assert_eq!(token(&local).as_deref(), Some("from-config"));
        assert_eq!(token(&globals("http://127.0.0.1:8090", Some("given"))).as_deref(), Some("given"));
        assert_eq!(token(&globals("http://127.0.0.1:8090", Some(""))).as_deref(), Some("from-config"));
    }

    #[test]
    fn an_address_that_is_none_is_refused_with_what_would_be_one() {
        let refused = |api| {
            let failure = Settings::resolve_in(&globals(api, None), &|_| None).err().unwrap();
            assert_eq!(failure.exit, crate::failure::ExitStatus::Usage);
            failure.text()
        };
        assert!(refused("127.0.0.1:8090").contains("http://127.0.0.1:8090"));
        assert!(refused("ftp://host").contains("must begin with http://"));
        assert!(refused("https://host").contains("ssh -L"));
    }
}
