//! What tlsdestinations and domaincerts ask of a server.
#![forbid(unsafe_code)]

use std::cell::OnceCell;
use std::path::Path;

use openssl::x509::X509;

use super::report_text::Say;
use super::targets::Target;
use super::temporary_control;
use crate::keyholder::{OwnKey, Password};
use crate::policy::domaincerts::{self, OwnCertificate};
use crate::policy::{self, Destinations, Port, Rule, Tls};
use crate::report;
use crate::settings::Settings;
use crate::store::client::{self, Partner, Request, Store, Trust};

/// tlsdestinations and domaincerts, for one sender.
pub struct Policy {
    destinations: Destinations,
    sender: Option<String>,
    own: Option<OwnCertificate>,
    system_anchors: OnceCell<Vec<X509>>,
}

/// A server to be tried, with what is asked of it.
pub struct Candidate {
    /// Who and where.
    pub target: Target,
    /// Where, and when TLS begins.
    pub port: Port,
    /// `Err`: a wrong line decides.
    pub plan: Result<Plan, Say>,
}

/// What holds for a server.
pub struct Plan {
    /// The line of tlsdestinations, or what holds without one.
    pub rule: Rule,
    /// Where TLS is used at all.
    pub store: Option<Store>,
}

impl Policy {
    /// Reads both files of a control directory.
    ///
    /// # Errors
    /// One of them cannot be read, or the sender's line in domaincerts is wrong.
    pub fn read(folder: &Path, sender: &str) -> Result<Policy, Say> {
        let said = |fail: report::Fail| temporary_control(&fail.to_string());
        let destinations = Destinations::open(&folder.join("tlsdestinations")).map_err(said)?;
        let certificates = policy::read_optional(&folder.join("domaincerts")).map_err(said)?;
        let sender = policy::sender_domain(sender);
        let own = domaincerts::look_up(&certificates, sender.as_deref())
            .map_err(|why| temporary_control(&why))?;
        Ok(Policy {
            destinations,
            sender,
            own,
            system_anchors: OnceCell::new(),
        })
    }

    /// What holds for a server of a destination.
    pub fn candidate(&self, target: &Target, destination: &str, port: Option<Port>) -> Candidate {
        let hosts = [destination, target.host.as_str()];
        let hosts = if hosts[0] == hosts[1] {
            &hosts[..1]
        } else {
            &hosts[..]
        };
        let found = self.destinations.look_up(hosts, self.sender.as_deref());
        let port = found
            .as_ref()
            .ok()
            .and_then(|rule| rule.value.port)
            .or(port)
            .unwrap_or(Port::plain(25));
        let bad = |why: &str| Say::new('Z', format!("TLS is not set up: {why}. (#4.7.5)"));
        let plan = found
            .map_err(|wrong| bad(&wrong.to_string()))
            .and_then(|rule| {
                let wanted = rule.tls() != Tls::Never;
                let store = wanted.then(|| self.store(&rule, &target.host, destination));
                let store = store
                    .transpose()
                    .map_err(|fail| bad(&format!("{}{fail}", under(&rule))))?;
                Ok(Plan { rule, store })
            });
        Candidate {
            target: target.clone(),
            port,
            plan,
        }
    }

    /// The system's anchors, read once, and at all before the sandbox.
    fn system_anchors(&self) -> &[X509] {
        self.system_anchors.get_or_init(client::system_anchors)
    }

    fn store(&self, rule: &Rule, host: &str, destination: &str) -> Result<Store, report::Fail> {
        let mut settings = Settings::default();
        if let Some(ciphers) = &rule.value.ciphers {
            settings.overlay([("CIPHERS".to_owned(), ciphers.clone())]);
        }
        let own = self.own.as_ref();
        let password = own.and_then(|own| own.password.as_deref());
        let keys = OwnKey {
            password: password.map(|password| Password::new(password.as_bytes())),
        };
        let name = "domaincerts";
        let request = Request {
            trust: match Partner::trust(rule) {
                Some(trust) => trust,
                None if rule.check().verifies() => Trust::Loaded(self.system_anchors()),
                None => Trust::Loaded(&[]),
            },
            certificate: own.map(|own| ((name, &*own.certificate), (name, &*own.key))),
            depth: rule.value.depth,
            tolerant: false,
            partner: Some(Partner::of(rule, host, destination)),
        };
        Store::load(&settings, &request, &keys)
    }
}

/// `under tlsdestinations line 3: `, where a line holds.
fn under(rule: &Rule) -> String {
    rule.line.map_or_else(String::new, |line| {
        format!("under tlsdestinations line {line}: ")
    })
}
