//! What tlsdestinations and domaincerts ask of a server.
#![forbid(unsafe_code)]

use std::cell::{OnceCell, RefCell};
use std::path::Path;
use std::rc::Rc;

use openssl::x509::X509;

use super::hosts::{Host, SMTP};
use super::report_text::Say;
use super::temporary_control;
use crate::domaincerts::{self, OwnCertificate};
use crate::keyholder::{OwnKey, Password};
use crate::report;
use crate::routes::{Login, Protocol, Route};
use crate::settings::Settings;
use crate::store::client::{self, Setup, Store, Trust};
use crate::tlsdestinations::{self, Destination, Destinations, Port, Rule, Tls, TlsMode, Way};
use crate::trust::{Name, Refusal};

/// Ports, where nothing says otherwise.
const QMTP: u16 = 209;
const QMTPS: u16 = 6209;

/// tlsdestinations and domaincerts, for one sender.
pub struct Rules {
    destinations: Destinations,
    sender: Option<String>,
    own: Option<OwnCertificate>,
    system_anchors: OnceCell<Vec<X509>>,
    /// One for each rule that was met: names belong to connections.
    stores: RefCell<Vec<(Rule, Rc<Store>)>>,
}

/// A server to be tried, with what is asked of it.
pub struct Server {
    /// Who and where.
    pub host: Host,
    /// What is spoken.
    pub protocol: Protocol,
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
    pub store: Option<Rc<Store>>,
    /// What a certificate may name.
    pub names: Vec<Name>,
    /// What makes the MX host's name count, where it does not.
    pub cure: Option<String>,
    /// Why nothing is sent without TLS: words that end a sentence.
    pub demand: Option<String>,
    /// The route's, with the line that it stands in.
    pub login: Option<(Login, String)>,
}

impl Rules {
    /// Reads both files of a control directory.
    ///
    /// # Errors
    /// One of them cannot be read, or the sender's line in domaincerts is wrong.
    pub fn read(folder: &Path, sender: &str) -> Result<Rules, Say> {
        let said = |fail: report::Fail| temporary_control(&fail.to_string());
        let destinations = Destinations::open(&folder.join("tlsdestinations")).map_err(said)?;
        let sender = tlsdestinations::sender_domain(sender);
        let own =
            domaincerts::read(&folder.join("domaincerts"), sender.as_deref()).map_err(said)?;
        Ok(Rules {
            destinations,
            sender,
            own,
            system_anchors: OnceCell::new(),
            stores: RefCell::default(),
        })
    }

    /// Whether there is a certificate of ours for the sender.
    #[must_use]
    pub fn has_key(&self) -> bool {
        self.own.is_some()
    }

    /// What holds for a server that is called with mail to a domain.
    pub fn server(&self, host: &Host, domain: &str, route: &Route) -> Server {
        let name = host.name.as_str();
        let way = match &route.relay {
            Some(relay) => Way::Relay {
                host: relay,
                login: route.login.is_some(),
            },
            None => Way::Exchanger {
                host: name,
                signed: host.signed,
            },
        };
        let to = Destination { domain, way };
        let found = self.destinations.look_up(&to, self.sender.as_deref());
        let port = port(found.as_ref().ok(), route);
        let protocol = match port.mode {
            TlsMode::Qmtps => Protocol::Qmtp,
            _ => route.protocol,
        };
        let bad = |why: &str| Say::later(format!("TLS is not set up: {why}. (#4.7.5)"));
        let plan = found
            .map_err(|wrong| bad(&wrong.to_string()))
            .and_then(|rule| {
                let demand = demand(&rule, route, protocol, port).map_err(|why| {
                    let sentence = format!("Route and policy contradict each other: {why}.");
                    Say::later(format!("{sentence} (#4.7.5)"))
                })?;
                // A wrong line is an error even where nothing of it would be used.
                let store = self.store(&rule).map_err(|fail| bad(&fail.to_string()))?;
                let store = (rule.tls() != Tls::Never).then_some(store);
                let login = route.login.clone();
                Ok(Plan {
                    names: client::names(&rule, &to),
                    cure: rule.cure(&to),
                    rule,
                    store,
                    demand,
                    login: login.map(|login| (login, route.place.clone())),
                })
            });
        Server {
            host: host.clone(),
            protocol,
            port,
            plan,
        }
    }

    /// The system's anchors, read once, and at all before the sandbox.
    fn system_anchors(&self) -> &[X509] {
        self.system_anchors.get_or_init(client::system_anchors)
    }

    /// The store of a rule, made when it is first met.
    fn store(&self, rule: &Rule) -> Result<Rc<Store>, report::Fail> {
        let mut stores = self.stores.borrow_mut();
        if let Some((_, store)) = stores.iter().find(|(known, _)| known == rule) {
            return Ok(Rc::clone(store));
        }
        let store = Rc::new(self.load(rule)?);
        stores.push((rule.clone(), Rc::clone(&store)));
        Ok(store)
    }

    fn load(&self, rule: &Rule) -> Result<Store, report::Fail> {
        let mut settings = Settings::default();
        if let Some(ciphers) = &rule.value.ciphers {
            settings.overlay([("CIPHERS".to_owned(), ciphers.clone())]);
        }
        let own = self.own.as_ref().filter(|_| rule.tls() != Tls::Never);
        let password = own.and_then(|own| own.password.as_deref());
        let keys = OwnKey {
            password: password.map(Password::new),
        };
        let anchors = if rule.verifies() {
            Trust::Loaded(self.system_anchors())
        } else {
            Trust::Loaded(&[])
        };
        let setup = Setup::under(rule, anchors).with_own(own);
        Store::load(&settings, &setup, &keys)
    }
}

impl Plan {
    /// Why a certificate is refused: words that follow `but`.
    pub fn refused(&self, refusal: &Refusal) -> String {
        match client::mismatch(refusal, &self.names, self.cure.as_deref()) {
            Some(why) => format!("its certificate names another host: {refusal}: {why}"),
            None => format!("its certificate did not verify: {refusal}"),
        }
    }
}

/// The route's port, else the rule's, else the protocol's: for QMTP the one with
/// TLS where the rule requires TLS, since the other one has no way to it.
fn port(rule: Option<&Rule>, route: &Route) -> Port {
    let given = route.port.or(rule.and_then(|rule| rule.value.port));
    let required = rule.is_some_and(|rule| rule.tls() == Tls::Required);
    given.unwrap_or_else(|| {
        Port::plain(match route.protocol {
            Protocol::Qmtp if required => QMTPS,
            Protocol::Qmtp => QMTP,
            Protocol::Smtp => SMTP,
        })
    })
}

/// Why nothing may be sent without TLS, if that is so. `Err`: rule and route
/// contradict each other.
fn demand(
    rule: &Rule,
    route: &Route,
    protocol: Protocol,
    port: Port,
) -> Result<Option<String>, String> {
    let line = match rule.line {
        Some(line) => format!("tlsdestinations line {line}"),
        None => String::from("the default"),
    };
    let place = match &*route.place {
        "" => line.clone(),
        place => place.to_owned(),
    };
    let number = port.number;
    let at_once = port.mode != TlsMode::StartTls;
    match (protocol, rule.tls()) {
        (Protocol::Qmtp, _) if route.login.is_some() => {
            return Err(format!(
                "{place} has a login, but QMTP on port {number} takes none"
            ));
        }
        (Protocol::Qmtp, Tls::Required) if !at_once => {
            return Err(format!(
                "{line} requires TLS, which QMTP on port {number} does not have"
            ));
        }
        (Protocol::Qmtp, Tls::Never) if at_once => {
            return Err(format!(
                "QMTP on port {number} is in TLS, which {line} forbids"
            ));
        }
        _ => {}
    }
    if port.mode == TlsMode::Implicit && rule.tls() == Tls::Never {
        return Err(format!(
            "port {number} is in TLS from the start, which {line} forbids"
        ));
    }
    let guarded = route.login.as_ref().is_some_and(|login| !login.in_clear);
    match rule.tls() {
        Tls::Required => Ok(Some(format!("{line} requires TLS"))),
        Tls::Never if guarded => Err(format!(
            "{place} has a login, which is not sent without TLS, and {line} forbids TLS"
        )),
        _ if guarded => Ok(Some(format!("the login of {place} requires TLS"))),
        _ => Ok(None),
    }
}
