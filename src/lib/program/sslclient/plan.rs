//! What the options, and the line of tlsdestinations that applies, ask of the server
//! that is called.
#![forbid(unsafe_code)]

use std::path::Path;

use crate::dialogue::Protocol;
use crate::domaincerts::{self, OwnCertificate};
use crate::options::sslclient::Options;
use crate::report::Fail;
use crate::store::{self, client};
use crate::text;
use crate::tlsdestinations::{
    self, Check, Destination, Destinations, FoundBy, Rule, Tls, TlsMode, Way,
};
use crate::trust::{Name, Reference, Verdict};

/// What the options and the policy of `-P` come to.
pub(super) struct Plan {
    pub(super) rule: Option<Rule>,
    /// The names of which the server's certificate must bear one.
    pub(super) names: Vec<Name>,
    /// What makes a name count that does not.
    pub(super) cure: Option<String>,
    pub(super) port: u16,
    pub(super) upgrade: Option<Protocol>,
}

impl Plan {
    pub(super) fn make(
        options: &Options,
        host: &str,
        reference: &Reference,
        port: u16,
    ) -> Result<Plan, Fail> {
        let named = options.name.as_deref().unwrap_or(host);
        let Some(path) = &options.destinations else {
            return Ok(Plan {
                rule: None,
                names: vec![Name::new(reference.clone())],
                cure: None,
                port,
                upgrade: options.upgrade,
            });
        };
        let destinations = Destinations::open(path)?;
        if destinations.is_missing() {
            return Err(no_file(path));
        }
        let to = destination(options, host);
        let rule = rule(&destinations, options, &to)?;
        if rule.tls() == Tls::Never {
            return Err(Fail::temporary(format!(
                "unable to use TLS: {} says that it is never tried with {}; no program is run in plaintext",
                place(&rule),
                text::excerpt(host.as_bytes(), 255)
            )));
        }
        if rule.value.dane {
            return Err(Fail::temporary(format!(
                "unable to verify the server: {} asks for DANE, which only qmail-sslremote \
                 checks; no program is run",
                place(&rule)
            )));
        }
        let port = rule
            .value
            .port
            .unwrap_or(tlsdestinations::Port::of_number(port));
        let upgrade = match port.mode {
            TlsMode::Implicit | TlsMode::Qmtps => None,
            TlsMode::StartTls => Some(options.upgrade.unwrap_or(Protocol::Smtp)),
        };
        // Whoever gives a name wants that one, unless the line is the domain's.
        let to = match rule.by {
            FoundBy::Domain => to,
            _ => Destination::itself(named),
        };
        Ok(Plan {
            names: client::names(&rule, &to),
            cure: rule.cure(&to),
            rule: Some(rule),
            port: port.number,
            upgrade,
        })
    }

    /// What was wrong with the server's certificate, where the line asks for one and
    /// takes another all the same.
    pub(super) fn let_pass(&self, verdict: &Verdict) -> Option<String> {
        let rule = self.rule.as_ref()?;
        let asked = rule.tls() != Tls::Required && rule.check() != Check::Nothing;
        let refusal = verdict.refusal().filter(|_| asked)?;
        Some(format!(
            "server certificate did not verify; {} allows that: {refusal}",
            place(rule)
        ))
    }
}

/// A file that was named and is not there: nobody knows what it would ask for.
pub(super) fn no_file(path: &Path) -> Fail {
    let shown = store::shown(path);
    Fail::temporary(format!(
        "unable to read {shown}: there is no such file; leave -P out to go by the options alone"
    ))
}

/// A refusal of TLS under a rule that would let mail go on without it.
pub(super) fn never_in_plaintext(fail: Fail, rule: Option<&Rule>) -> Fail {
    match rule {
        Some(rule) if rule.tls() == Tls::Offered => Fail::temporary(format!(
            "{fail}; {} allows plaintext for mail, but no program is run in it here",
            place(rule)
        )),
        _ => fail,
    }
}

/// Where a rule stands.
fn place(rule: &Rule) -> String {
    match rule.line {
        Some(line) => format!("tlsdestinations line {line}"),
        None => "tlsdestinations, which has no line for the host,".to_owned(),
    }
}

/// Whom a rule is looked up for: `host`, or with `-m` the domain of that name,
/// whose server `host` is.
pub(super) fn destination<'a>(options: &'a Options, host: &'a str) -> Destination<'a> {
    match options.name.as_deref() {
        Some(domain) => Destination {
            domain,
            way: Way::Exchanger {
                host,
                signed: false,
            },
        },
        None => Destination::itself(host),
    }
}

fn rule(
    destinations: &Destinations,
    options: &Options,
    to: &Destination<'_>,
) -> Result<Rule, Fail> {
    let sender = options
        .sender
        .as_deref()
        .and_then(tlsdestinations::sender_domain);
    destinations
        .look_up(to, sender.as_deref())
        .map_err(|unusable| Fail::temporary(unusable.to_string()))
}

pub(super) fn own_certificate(options: &Options) -> Result<Option<OwnCertificate>, Fail> {
    let Some(path) = &options.own_certificates else {
        return Ok(None);
    };
    let sender = options
        .sender
        .as_deref()
        .and_then(tlsdestinations::sender_domain);
    if !path.exists() {
        let shown = store::shown(path);
        let why = format!("unable to read {shown}: there is no such file, which -G names");
        return Err(Fail::temporary(why));
    }
    domaincerts::read(path, sender.as_deref())
}
