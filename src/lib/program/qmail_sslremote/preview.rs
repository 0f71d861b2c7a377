//! `qmail-sslremote -P domain ...`: what a delivery to each domain would meet now,
//! for a person. DNS is asked; no mail server is called.
#![forbid(unsafe_code)]

use std::fmt::Write as _;
use std::path::Path;

use super::control_files::ControlFiles;
use super::hosts::{self, Host, Resolver};
use super::plan::{self, Plan, Rules, Server};
use super::records;
use super::report_text::Say;
use super::sts::{Followed, Search};
use super::temporary_control;
use crate::dane;
use crate::dns::name::DomainName;
use crate::dns::{Dns, NoAnswer};
use crate::mta_sts::Policy;
use crate::mta_sts::policy::Mode;
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
    for remark in &control.remarks {
        let _ = writeln!(out, "{remark}");
    }
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
        let search = Search::of(domain, route);
        if let Err(say) = search.ask(self.resolver) {
            return self.deferred(&say);
        }
        let found = if let Some(relay) = &route.relay {
            hosts::of_relay(self.resolver, relay, &route.place)
        } else {
            self.exchangers(domain);
            hosts::of_domain(self.resolver, domain)
        };
        let name = self.name.clone();
        let servers = found.and_then(|found| {
            let servers = self
                .rules
                .servers(&found, &name, route, self.resolver, &search)?;
            Ok((found, servers))
        });
        let (found, servers) = match servers {
            Ok(servers) => servers,
            Err(say) => return self.deferred(&say),
        };
        let lookups: Vec<_> = servers
            .iter()
            .map(|server| records::place(&server.host, server.port.number))
            .collect();
        let published = match records::look_up(&lookups, self.resolver) {
            Ok(published) => published,
            Err(say) => return self.deferred(&say),
        };
        let has_policy = match self.policy(&search) {
            Ok(has_policy) => has_policy,
            Err(say) => return self.deferred(&say),
        };
        let mut told: Vec<&str> = Vec::new();
        for ((host, server), published) in found.iter().zip(&servers).zip(&published) {
            // Each of its addresses has the same.
            if !told.contains(&host.name.as_str()) {
                told.push(&host.name);
                let to = plan::destination(host, &name, route);
                self.server(&found, server, &to, published, has_policy);
            }
        }
        if let Err(off) = search.domain() {
            self.say(&format!("no MTA-STS: {off}"));
        }
        if let Some(why) = self.resolver.dns().ok().and_then(Dns::hindrance) {
            self.say(&format!("no DNSSEC, and so no DANE: {why}"));
        }
    }

    /// The domain's policy, with its age; whether it asks for anything.
    fn policy(&mut self, search: &Search) -> Result<bool, Say> {
        let Ok(domain) = search.domain() else {
            return Ok(false);
        };
        let known = search.known(self.resolver)?;
        match &known.policy {
            Some((policy, age)) => {
                let age = match age {
                    Some(age) => format!("{age} s old, of {} s", policy.max_age),
                    None => "of a time that is still to come".to_owned(),
                };
                let policy = policy_words(policy);
                self.say(&format!("MTA-STS policy of {domain}: {policy}; {age}"));
            }
            None if known.words().is_none() => self.say("no MTA-STS policy"),
            None => {}
        }
        if let Some(why) = &known.wrong_record {
            let place = domain.record_name();
            self.say(&format!("MTA-STS: {place} counts for nothing: {why}"));
        }
        if let Some(words) = known.words() {
            self.say(&format!("MTA-STS: {words}"));
        }
        let policy = known.policy.as_ref();
        Ok(policy.is_some_and(|(policy, _)| policy.mode != Mode::None))
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
            Err(NoAnswer::NoRecords) => self.say("no MX: the domain itself is called"),
            // That is told where its addresses are looked for.
            Err(_) => {}
        }
    }

    /// The TLSA records of a host.
    fn records(&mut self, name: &str, published: &dane::TlsaFound) {
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
    }

    /// A host, its records, and what is asked of it.
    fn server(
        &mut self,
        all: &[Host],
        server: &Server,
        to: &Destination<'_>,
        published: &dane::TlsaFound,
        has_policy: bool,
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
        self.records(&name, published);
        match &server.plan {
            Ok(plan) => {
                self.say(&format!("{name}: {}", plan.rule.in_words(to)));
                if matches!(published, Ok(Some(_)) | Err(_)) && !plan.rule.weighs_records() {
                    let line = plan.rule.line.unwrap_or_default();
                    self.say(&format!(
                        "{name}: line {line} stands above DANE: its TLSA records do not count"
                    ));
                }
                if plan.rule.line.is_some() && !plan.rule.weighs_policy() && has_policy {
                    let line = plan.rule.line.unwrap_or_default();
                    self.say(&format!(
                        "{name}: line {line} stands above MTA-STS: the policy does not count"
                    ));
                }
                if let Some(sts) = plan.sts.as_ref().filter(|sts| !sts.listed) {
                    self.say(&format!("{name}: {}", sts.unlisted()));
                }
                self.say(&format!("{name}: a delivery now {}", now(plan)));
            }
            Err(excluded) => self.deferred(&excluded.say),
        }
    }
}

fn signed(signed: bool) -> &'static str {
    if signed { "signed" } else { "unsigned" }
}

/// What a delivery does of TLS.
fn now(plan: &Plan) -> String {
    let enforced = plan.sts.as_ref().is_some_and(Followed::is_enforced);
    match (&plan.demand, &plan.dane) {
        (Some(demand), _) if enforced => {
            format!("requires TLS and a certificate that verifies and names the host: {demand}")
        }
        (Some(demand), Some(dane)) if dane.published.is_some() => {
            format!("requires TLS and a certificate that matches a TLSA record: {demand}")
        }
        (Some(demand), _) => format!("requires TLS: {demand}"),
        (None, _) if plan.rule.tls() == Tls::Never => "goes without TLS".to_owned(),
        (None, _) => "uses TLS if it is offered, and else goes without".to_owned(),
    }
}

/// `enforce, mx mx1.example *.mx.example`.
fn policy_words(policy: &Policy) -> String {
    let patterns = policy.patterns.iter();
    let patterns: Vec<String> = patterns
        .map(|pattern| text::excerpt(pattern.as_bytes(), 255))
        .collect();
    match &*patterns {
        [] => policy.mode.to_string(),
        patterns => format!("{}, mx {}", policy.mode, patterns.join(" ")),
    }
}
