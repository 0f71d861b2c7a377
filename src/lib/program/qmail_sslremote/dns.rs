//! Mail exchangers and addresses, asked of a DNS server directly: /etc/hosts and
//! search lists are no business of mail's.
#![forbid(unsafe_code)]

use std::net::IpAddr;
use std::time::Duration;

use hickory_resolver::config::{NameServerConfig, ResolveHosts, ResolverConfig};
use hickory_resolver::net::NetError;
use hickory_resolver::net::runtime::TokioRuntimeProvider;
use hickory_resolver::proto::rr::{RData, RecordType};
use hickory_resolver::{Resolver, TokioResolver};

/// How long one question waits for its answer, and how often it is asked.
const TIMEOUT: Duration = Duration::from_secs(5);
const ATTEMPTS: usize = 3;

/// Why there is no answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Trouble {
    /// The name exists and has no such record.
    NoRecords,
    /// The name does not exist.
    NoSuchName,
    /// Nobody could tell.
    Temporary(String),
}

impl From<NetError> for Trouble {
    fn from(error: NetError) -> Self {
        if error.is_nx_domain() {
            Trouble::NoSuchName
        } else if error.is_no_records_found() {
            Trouble::NoRecords
        } else {
            Trouble::Temporary(error.to_string())
        }
    }
}

/// A resolver.
pub struct Dns {
    runtime: tokio::runtime::Runtime,
    resolver: TokioResolver,
}

impl Dns {
    /// Asks `server`, as `$DNSCACHEIP` names it, else those of resolv.conf.
    ///
    /// # Errors
    /// There is no server to ask.
    pub fn new(server: Option<IpAddr>) -> Result<Dns, String> {
        let said = |error: &dyn std::fmt::Display| error.to_string();
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .map_err(|error| said(&error))?;
        let mut builder = match server {
            Some(ip) => {
                let server = NameServerConfig::udp_and_tcp(ip);
                let config = ResolverConfig::from_name_servers(vec![server]);
                Resolver::builder_with_config(config, TokioRuntimeProvider::default())
            }
            None => Resolver::builder_tokio().map_err(|error| said(&error))?,
        };
        let options = builder.options_mut();
        options.timeout = TIMEOUT;
        options.attempts = ATTEMPTS;
        options.use_hosts_file = ResolveHosts::Never;
        let resolver = builder.build().map_err(|error| said(&error))?;
        Ok(Dns { runtime, resolver })
    }

    fn ask<T>(
        &self,
        name: &str,
        kind: RecordType,
        take: impl Fn(&RData) -> Option<T>,
    ) -> Result<Vec<T>, Trouble> {
        // With a dot at its end a name is complete.
        let name = format!("{}.", name.strip_suffix('.').unwrap_or(name));
        let found = self
            .runtime
            .block_on(async { self.resolver.lookup(name, kind).await })?;
        let records: Vec<T> = found
            .answers()
            .iter()
            .filter_map(|record| take(&record.data))
            .collect();
        if records.is_empty() {
            return Err(Trouble::NoRecords);
        }
        Ok(records)
    }

    /// The mail exchangers of a domain, with their preferences; the name of a
    /// null MX (RFC 7505) is empty.
    ///
    /// # Errors
    /// There are none, or nobody could tell.
    pub fn exchangers(&self, domain: &str) -> Result<Vec<(u16, String)>, Trouble> {
        self.ask(domain, RecordType::MX, |data| match data {
            RData::MX(mx) => {
                let name = mx.exchange.to_ascii();
                let name = name.strip_suffix('.').unwrap_or(&name);
                Some((mx.preference, name.to_ascii_lowercase()))
            }
            _ => None,
        })
    }

    /// The addresses of a host, IPv6 first.
    ///
    /// # Errors
    /// It has none, or nobody could tell.
    pub fn addresses(&self, host: &str) -> Result<Vec<IpAddr>, Trouble> {
        let six = self.ask(host, RecordType::AAAA, |data| match data {
            RData::AAAA(ip) => Some(IpAddr::V6(ip.0)),
            _ => None,
        });
        let four = self.ask(host, RecordType::A, |data| match data {
            RData::A(ip) => Some(IpAddr::V4(ip.0)),
            _ => None,
        });
        match (six, four) {
            (Ok(mut six), Ok(four)) => {
                six.extend(four);
                Ok(six)
            }
            (Ok(some), _) | (_, Ok(some)) => Ok(some),
            // One that could not be told may be there.
            (Err(Trouble::Temporary(why)), _) | (_, Err(Trouble::Temporary(why))) => {
                Err(Trouble::Temporary(why))
            }
            (_, Err(trouble)) => Err(trouble),
        }
    }
}
