//! `qmail-sslremote -P domain ...`: what a delivery to each domain would meet now,
//! for a person. DNS is asked; no mail server is called.
#![forbid(unsafe_code)]

use std::fmt::Write as _;
use std::path::Path;

use super::control_files::ControlFiles;
use super::dane;
use super::hosts::{self, Host, Resolver};
use super::plan::{self, Plan, Rules, Server};
use super::report_text::Say;
use super::temporary_control;
use crate::dns::name::DomainName;
use crate::dns::{Dns, Trouble};
use crate::routes::Route;
use crate::text;
use crate::tlsdestinations::{Destination, Tls};

/// A sender of whom no file says anything in particular.
const ANYBODY: &str = "@";

/// The whole of `-P`, in qmail's home.
///
/// # Errors
/// Control files cannot be read.
pub fn run(folder: &Path, domains: &[Vec<u8>]) -> Result<String, Say> {
    let control = ControlFiles::read(folder).map_err(temporary_control)?;
    let rules = Rules::read(folder, ANYBODY)?;
    let resolver = Resolver::default();
    let mut out = String::new();
    for domain in domains {
        let mut preview = Preview {
            name: super::spelt(domain),
            rules: &rules,
            resolver: &resolver,
            out: &mut out,
        };
        match control.routes.look_up(&preview.name, ANYBODY.as_bytes()) {
            Ok(route) => preview.with_route(&route, domain),
            Err(wrong) => preview.say(&format!("deferred: {wrong}")),
        }
    }
    Ok(out)
}

/// What is said of one domain.
struct Preview<'a> {
    name: String,
    rules: &'a Rules,
    resolver: &'a Resolver,
    out: &'a mut String,
}

impl Preview<'_> {
    fn say(&mut self, words: &str) {
        let name = text::excerpt(self.name.as_bytes(), 255);
        let _ = writeln!(self.out, "{name}: {words}");
    }

    /// The report's text of a delivery that ends before anybody is called.
    fn deferred(&mut self, say: &Say) {
        let lines: Vec<&str> = say.text.lines().collect();
        self.say(&lines.join(" "));
    }

    fn with_route(&mut self, route: &Route, domain: &[u8]) {
        match route.leads() {
            Some(leads) => self.say(&leads),
            None => self.say("no route"),
        }
        let found = if let Some(relay) = &route.relay {
            hosts::of_relay(self.resolver, relay, &route.place)
        } else {
            self.exchangers(domain);
            hosts::of_domain(self.resolver, domain)
        };
        let name = self.name.clone();
        let servers = found.and_then(|found| {
            let servers = self.rules.servers(&found, &name, route, self.resolver)?;
            Ok((found, servers))
        });
        let (found, servers) = match servers {
            Ok(servers) => servers,
            Err(say) => return self.deferred(&say),
        };
        let lookups: Vec<_> = servers
            .iter()
            .map(|server| dane::place(&server.host, server.port.number))
            .collect();
        let published = match dane::look_up(&lookups, self.resolver) {
            Ok(published) => published,
            Err(say) => return self.deferred(&say),
        };
        let mut told: Vec<&str> = Vec::new();
        for ((host, server), published) in found.iter().zip(&servers).zip(&published) {
            // Each of its addresses has the same.
            if !told.contains(&host.name.as_str()) {
                told.push(&host.name);
                let to = plan::destination(host, &name, route);
                self.server(&found, server, &to, published);
            }
        }
        if let Some(why) = self.resolver.dns().ok().and_then(Dns::hindrance) {
            self.say(&format!("no DNSSEC, and so no DANE: {why}"));
        }
    }

    /// The MX records.
    fn exchangers(&mut self, domain: &[u8]) {
        let bare = domain.strip_suffix(b".").unwrap_or(domain);
        let (Ok(name), false) = (DomainName::parse(domain), hosts::is_literal(bare)) else {
            return;
        };
        let Ok(dns) = self.resolver.dns() else {
            return;
        };
        match dns.exchangers(&name) {
            Ok(answer) => {
                let signed = signed(answer.secure);
                let mut hosts = answer.records;
                hosts.sort_by_key(|(preference, _)| *preference);
                let hosts = hosts
                    .iter()
                    .map(|(number, host)| format!("{number} {host}"));
                let hosts: Vec<String> = hosts.collect();
                self.say(&format!("MX {signed}: {}", hosts.join(", ")));
            }
            Err(Trouble::NoRecords) => self.say("no MX: the domain itself is called"),
            // That is told where its addresses are looked for.
            Err(_) => {}
        }
    }

    /// A host, its records, and what is asked of it.
    fn server(
        &mut self,
        all: &[Host],
        server: &Server,
        to: &Destination<'_>,
        published: &dane::Found,
    ) {
        let host = &server.host;
        let name = text::excerpt(host.name.as_bytes(), 255);
        let addresses: Vec<String> = all
            .iter()
            .filter(|one| one.name == host.name)
            .map(|one| one.ip.to_string())
            .collect();
        let of = host.named.as_ref().map_or(String::new(), |named| {
            format!(", address {}", signed(named.signed))
        });
        self.say(&format!(
            "{name} [{}] port {}{of}",
            addresses.join(" "),
            server.port
        ));
        match published {
            Ok(None) => {}
            Ok(Some(tlsa)) => {
                for record in &tlsa.usable {
                    let [usage, selector, matching] = record.numbers();
                    let hex = text::hex(&record.data);
                    let at = &tlsa.host;
                    self.say(&format!("{at}: TLSA {usage} {selector} {matching} {hex}"));
                }
                for why in &tlsa.unusable {
                    self.say(&format!("{name}: a TLSA record is of no use: {why}"));
                }
            }
            Err(why) => self.say(&format!(
                "{name}: its TLSA records are not to be had: {why}"
            )),
        }
        match &server.plan {
            Ok(plan) => {
                self.say(&format!("{name}: {}", plan.rule.in_words(to)));
                if matches!(published, Ok(Some(_)) | Err(_)) && !plan.rule.weighs_records() {
                    let line = plan.rule.line.unwrap_or_default();
                    self.say(&format!(
                        "{name}: line {line} stands above DANE: its TLSA records do not count"
                    ));
                }
                self.say(&format!("{name}: a delivery now {}", now(plan)));
            }
            Err(barred) => self.deferred(&barred.say),
        }
    }
}

fn signed(signed: bool) -> &'static str {
    if signed { "signed" } else { "unsigned" }
}

/// What a delivery does of TLS.
fn now(plan: &Plan) -> String {
    match (&plan.demand, &plan.dane) {
        (Some(demand), Some(dane)) if dane.published.is_some() => {
            format!("requires TLS and a certificate that matches a TLSA record: {demand}")
        }
        (Some(demand), _) => format!("requires TLS: {demand}"),
        (None, _) if plan.rule.tls() == Tls::Never => "goes without TLS".to_owned(),
        (None, _) => "uses TLS if it is offered, and else goes without".to_owned(),
    }
}
