//! sslclient as a child.
#![forbid(unsafe_code)]

use std::process::Command;

use super::authority::Authority;
use super::programs::taken_over;
use super::{Finished, Place, Server, ours, run};

/// A run of sslclient to be.
pub struct Client {
    words: Vec<String>,
    env: Vec<(String, String)>,
    before: Vec<String>,
    program: String,
}

impl Client {
    /// `sslclient -RHl localhost -a ROOT`.
    pub fn new(place: &Place) -> Client {
        let root = place.write("client-root.pem", Authority::shared_root().pem());
        Client::bare().options("-a").option(&root)
    }

    /// Without anchors of its own.
    pub fn bare() -> Client {
        let path = std::env::var_os("PATH").unwrap_or_default();
        let path = path.into_string().expect("PATH is UTF-8");
        Client {
            words: vec!["-RHl".into(), "localhost".into()],
            env: vec![("PATH".into(), path)],
            before: Vec::new(),
            program: ours("sslclient"),
        }
    }

    /// More options, separated by blanks.
    pub fn options(mut self, words: &str) -> Client {
        self.words
            .extend(words.split_whitespace().map(str::to_owned));
        self
    }

    /// One word, whatever it holds.
    pub fn option(mut self, word: &str) -> Client {
        self.words.push(word.to_owned());
        self
    }

    /// In the hands of an attacker, who does this: see tests/taken_over.
    pub fn taken_over(mut self, deed: &str) -> Client {
        self.program = taken_over();
        self.env("TAKEN_OVER", &format!("sslclient:{deed}"))
    }

    pub fn env(mut self, name: &str, value: &str) -> Client {
        self.env.push((name.to_owned(), value.to_owned()));
        self
    }

    /// Words before the client's own.
    pub fn through(mut self, words: impl IntoIterator<Item = String>) -> Client {
        self.before.extend(words);
        self
    }

    /// The command for host, port and program.
    pub fn command(&self, host: &str, port: u16, prog: &[&str]) -> Command {
        let mut words = self.before.clone();
        words.push(self.program.clone());
        let mut command = Command::new(&words[0]);
        command
            .args(&words[1..])
            .args(&self.words)
            .args([host, &port.to_string()])
            .args(prog)
            .env_clear()
            .envs(self.env.iter().map(|(name, value)| (name, value)));
        command
    }

    /// Runs it with a program.
    pub fn run(&self, host: &str, port: u16, prog: &[&str]) -> Finished {
        run(&mut self.command(host, port, prog), b"")
    }

    /// Runs it with a script of the shell.
    pub fn script(&self, host: &str, port: u16, script: &str) -> Finished {
        self.run(host, port, &["/bin/sh", "-c", script])
    }

    /// Asks localhost for all that it sends.
    pub fn read(&self, server: &Server) -> Finished {
        self.script("localhost", server.port, "cat <&6")
    }
}
