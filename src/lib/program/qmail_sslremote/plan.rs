//! What tlsdestinations and domaincerts ask of a server.
#![forbid(unsafe_code)]

use std::cell::{OnceCell, RefCell};
use std::path::Path;
use std::rc::Rc;

use super::failure::{Excluded, Exclusion};
use super::hosts::{self, Host, Resolver, SMTP};
use super::records;
use super::report_text::Say;
use super::reporting;
use super::sts::{Followed, Known, Search};
use super::temporary_control;
use crate::dane::{self, Dane};
use crate::dns;
use crate::domaincerts::{self, OwnCertificate};
use crate::keyholder::{BY_LINE, OwnKey, Password};
use crate::report::Fail;
use crate::routes::{Login, Protocol, Route};
use crate::settings::Settings;
use crate::store::client::{self, Setup, Store, Trust};
use crate::store::pool::{self, AnchorPool};
use crate::text;
use crate::tlsdestinations::{
    self, Destination, Destinations, Port, Rule, Tls, TlsMode, Unusable, Way,
};
use crate::trust::{Name, Refusal};

/// Ports, where nothing says otherwise.
const QMTP: u16 = 209;
const QMTPS: u16 = 6209;

/// tlsdestinations and domaincerts, for one sender.
pub struct Rules {
    destinations: Destinations,
    /// Whether what hosts and domains publish counts.
    weighs_published: bool,
    sender: Option<String>,
    own: Option<OwnCertificate>,
    system_anchors: OnceCell<AnchorPool>,
    /// One for each rule that was met, and what stands above it: names belong to
    /// connections.
    stores: RefCell<Vec<(Rule, AboveRule, Rc<Store>)>>,
}

/// What stands above a rule, as far as it is the store's business.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct AboveRule {
    /// There must be a certificate.
    certificate: bool,
    /// The chain is judged for a domain's policy, too.
    policy: bool,
}

/// A server to be tried, with what is asked of it.
pub struct Server {
    /// Who and where.
    pub host: Host,
    /// What is spoken.
    pub protocol: Protocol,
    /// Where, and when TLS begins.
    pub port: Port,
    /// Whose policy counts for it.
    pub applied: reporting::Applied,
    /// `Err`: it must not be called.
    pub plan: Result<Plan, Excluded>,
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
    /// Where the server has signed TLSA records that count.
    pub dane: Option<Dane>,
    /// Where the domain's policy counts.
    pub sts: Option<Followed>,
    /// What is known of it, where it is weighed at all.
    pub known: Option<Rc<Known>>,
}

/// What tlsdestinations says of a server, before its records are known.
struct Applied<'a> {
    host: &'a Host,
    to: Destination<'a>,
    /// `Err`: a wrong line decides.
    rule: Result<Rule, Unusable>,
    port: Port,
    protocol: Protocol,
}

impl Applied<'_> {
    /// Where its TLSA records are, if they are weighed.
    fn place(&self) -> Option<dns::Endpoint> {
        let weighed = self.rule.as_ref().is_ok_and(Rule::weighs_records);
        records::place(self.host, self.port.number).filter(|_| weighed)
    }

    /// Whether a policy of the domain is weighed for it: not where its own records
    /// stand above that.
    fn weighs_policy(&self, found: &dane::TlsaFound) -> bool {
        let weighed = self.rule.as_ref().is_ok_and(Rule::weighs_policy);
        let above = match found {
            Ok(Some(tlsa)) => !tlsa.usable.is_empty(),
            Ok(None) => self.rule.as_ref().is_ok_and(|rule| rule.value.dane),
            Err(_) => true,
        };
        weighed && !above && self.protocol == Protocol::Smtp
    }

    /// The policy that counts for it, as TLS reports have it.
    fn policy(&self, found: &dane::TlsaFound, followed: Option<&Followed>) -> reporting::Applied {
        let asked = self.rule.as_ref().is_ok_and(|rule| rule.value.dane);
        reporting::Applied::of(found, asked, followed)
    }
}

impl Rules {
    /// Reads both files of a control directory.
    ///
    /// # Errors
    /// One of them cannot be read, or the sender's line in domaincerts is wrong.
    pub fn read(folder: &Path, sender: &str) -> Result<Rules, Say> {
        let destinations = Destinations::open(&folder.join("tlsdestinations"));
        Rules::under(destinations.map_err(temporary_control)?, folder, sender)
    }

    fn under(destinations: Destinations, folder: &Path, sender: &str) -> Result<Rules, Say> {
        let said = |fail: Fail| temporary_control(&fail);
        let sender = tlsdestinations::sender_domain(sender);
        let own =
            domaincerts::read(&folder.join("domaincerts"), sender.as_deref()).map_err(said)?;
        Ok(Rules {
            destinations,
            weighs_published: true,
            sender,
            own,
            system_anchors: OnceCell::new(),
            stores: RefCell::default(),
        })
    }

    /// The same for mail that tells of broken TLS, and must not need it (RFC 8460, 5.3):
    /// no line decides, and DANE does not apply.
    ///
    /// # Errors
    /// The sender's line in domaincerts is wrong, or the file cannot be read.
    pub fn for_tls_reports(folder: &Path, sender: &str) -> Result<Rules, Say> {
        Ok(Rules {
            weighs_published: false,
            ..Rules::under(Destinations::from_text(""), folder, sender)?
        })
    }

    /// Whether there is a certificate of ours for the sender.
    #[must_use]
    pub fn has_key(&self) -> bool {
        self.own.is_some()
    }

    /// What holds for servers that are called with mail to a domain.
    ///
    /// # Errors
    /// What control files say of the resolver cannot be followed, or the only one is
    /// this host.
    pub fn servers(
        &self,
        hosts: &[Host],
        domain: &str,
        route: &Route,
        resolver: &Resolver,
        search: &Search,
    ) -> Result<Vec<Server>, Say> {
        let applied: Vec<Applied<'_>> = hosts
            .iter()
            .map(|host| self.applied(host, domain, route))
            .collect();
        let place = |applied: &Applied<'_>| applied.place().filter(|_| self.weighs_published);
        let places: Vec<Option<dns::Endpoint>> = applied.iter().map(place).collect();
        let found = records::look_up(&places, resolver)?;
        let weighed: Vec<bool> = applied
            .iter()
            .zip(&found)
            .map(|(applied, found)| self.weighs_published && applied.weighs_policy(found))
            .collect();
        // Where no server follows it, it is not fetched.
        let known = if weighed.contains(&true) {
            Some(Rc::new(search.known(resolver)?.clone()))
        } else {
            None
        };
        let servers = applied.into_iter().zip(found).zip(weighed);
        let servers: Vec<Server> = servers
            .map(|((applied, found), weighed)| {
                let known = known.as_ref().filter(|_| weighed);
                let followed = known.and_then(|known| search.followed(known, applied.host));
                Server {
                    applied: applied.policy(&found, followed.as_ref()),
                    plan: self
                        .plan(&applied, route, &found, followed)
                        .map(|plan| Plan {
                            known: known.cloned(),
                            ..plan
                        }),
                    host: applied.host.clone(),
                    protocol: applied.protocol,
                    port: applied.port,
                }
            })
            .collect();
        if let (None, [one]) = (&route.relay, &servers[..]) {
            hosts::not_ourselves(one.host.ip, one.port.number)?;
        }
        Ok(servers)
    }

    /// The line that decides for a server, and how it is called.
    fn applied<'a>(&self, host: &'a Host, domain: &'a str, route: &'a Route) -> Applied<'a> {
        let to = destination(host, domain, route);
        let rule = self.destinations.look_up(&to, self.sender.as_deref());
        let port = port(rule.as_ref().ok(), route);
        let protocol = match port.mode {
            TlsMode::Qmtps => Protocol::Qmtp,
            _ => route.protocol,
        };
        Applied {
            host,
            to,
            rule,
            port,
            protocol,
        }
    }

    /// # Errors
    /// The server must not be called.
    fn plan(
        &self,
        applied: &Applied<'_>,
        route: &Route,
        found: &dane::TlsaFound,
        sts: Option<Followed>,
    ) -> Result<Plan, Excluded> {
        let line = |sentence: String| Excluded {
            reason: Exclusion::Line,
            say: Say::later(sentence),
        };
        let bad = |why: &str| line(format!("TLS is not set up: {why}. (#4.7.5)"));
        let Applied { host, to, .. } = applied;
        let rule = applied
            .rule
            .as_ref()
            .map_err(|wrong| bad(&wrong.to_string()))?;
        let names = client::names(rule, to);
        let dane = records::weighed(host, rule, to, names.clone(), found)?;
        let enforced = sts.as_ref().filter(|sts| sts.is_enforced());
        if let Some(sts) = enforced.filter(|sts| !sts.listed) {
            let name = text::excerpt(host.name.as_bytes(), 255);
            let why = sts.unlisted();
            return Err(Excluded {
                reason: Exclusion::Unlisted,
                say: Say::later(format!("{name} is not called: {why}. (#4.7.5)")),
            });
        }
        let requires = match (&dane, rule.tls()) {
            _ if enforced.is_some() => enforced.map(Followed::demand),
            (Some(dane), _) => Some(dane::demand(dane, rule)),
            (None, Tls::Required) => Some(format!("{} requires TLS", place(rule))),
            (None, _) => None,
        };
        let demand =
            demand(rule, requires, route, applied.protocol, applied.port).map_err(|why| {
                let sentence = format!("Route and policy contradict each other: {why}.");
                line(format!("{sentence} (#4.7.5)"))
            })?;
        // A wrong line is an error even where nothing of it would be used.
        let above = AboveRule {
            certificate: dane.is_some() || enforced.is_some(),
            policy: sts.is_some(),
        };
        let store = self.store(rule, above);
        let store = store.map_err(|fail| bad(&fail.to_string()))?;
        let login = route.login.clone();
        Ok(Plan {
            names,
            cure: rule.cure(to),
            rule: rule.clone(),
            store: (rule.tls() != Tls::Never).then_some(store),
            demand,
            login: login.map(|login| (login, route.place.clone())),
            dane,
            sts,
            known: None,
        })
    }

    /// The system's anchors, read once, and at all before the sandbox.
    fn system_anchors(&self) -> &AnchorPool {
        self.system_anchors.get_or_init(|| pool::of_system().pool)
    }

    /// The store of a rule, made when it is first met.
    fn store(&self, rule: &Rule, above: AboveRule) -> Result<Rc<Store>, Fail> {
        let mut stores = self.stores.borrow_mut();
        let known = |(known, with, _): &&(Rule, AboveRule, _)| known == rule && *with == above;
        if let Some((.., store)) = stores.iter().find(known) {
            return Ok(Rc::clone(store));
        }
        let store = Rc::new(self.load(rule, above)?);
        stores.push((rule.clone(), above, Rc::clone(&store)));
        Ok(store)
    }

    fn load(&self, rule: &Rule, above: AboveRule) -> Result<Store, Fail> {
        let settings = Settings::default().with_ciphers(rule.value.ciphers.as_ref());
        let own = self.own.as_ref().filter(|_| rule.tls() != Tls::Never);
        let password = own.and_then(|own| own.password.as_deref());
        let keys = OwnKey {
            password: password.map(Password::new),
            given: BY_LINE,
        };
        let anchors = if rule.verifies() || above.policy {
            Trust::Pool(self.system_anchors())
        } else {
            Trust::Nobody
        };
        let mut setup = Setup::under(rule, anchors).with_own(own);
        // A CA of the postmaster's own that may fail says nothing of a policy.
        if above.policy && above.certificate && rule.tls() == Tls::Offered {
            setup.trust = anchors;
        }
        // RFC 7672, 8.2: what has no certificate matches no record.
        setup.anonymous &= !above.certificate;
        Store::load(&settings, &setup, &keys)
    }
}

impl Plan {
    /// Why a certificate is refused: words that follow `but`.
    pub fn refused(&self, refusal: &Refusal) -> String {
        refused(refusal, self.cure.as_deref())
    }
}

/// Why a certificate is refused, or would be: words that follow `but`.
pub fn refused(refusal: &Refusal, cure: Option<&str>) -> String {
    match client::mismatch(refusal, cure) {
        Some(why) => format!("its certificate names another host: {refusal}: {why}"),
        None => format!("its certificate did not verify: {refusal}"),
    }
}

/// Where mail to a domain goes, at a host.
pub fn destination<'a>(host: &'a Host, domain: &'a str, route: &'a Route) -> Destination<'a> {
    let way = match &route.relay {
        Some(relay) => Way::Relay {
            host: relay,
            login: route.login.is_some(),
        },
        None => Way::Exchanger {
            host: &host.name,
            signed: host.signed,
        },
    };
    Destination { domain, way }
}

/// The route's port, else the rule's, else the protocol's: for QMTP the one with
/// TLS where the rule requires TLS, since the other one has no way to it.
fn port(rule: Option<&Rule>, route: &Route) -> Port {
    let given = route.port.or(rule.and_then(|rule| rule.value.port));
    let required = rule.is_some_and(|rule| rule.tls() == Tls::Required);
    given.unwrap_or_else(|| {
        Port::of_number(match route.protocol {
            Protocol::Qmtp if required => QMTPS,
            Protocol::Qmtp => QMTP,
            Protocol::Smtp => SMTP,
        })
    })
}

/// Where a rule stands.
fn place(rule: &Rule) -> String {
    match rule.line {
        Some(line) => format!("tlsdestinations line {line}"),
        None => String::from("the default"),
    }
}

/// Why nothing may be sent without TLS, if that is so: what requires it, else the
/// route's login. `Err`: rule and route contradict each other.
fn demand(
    rule: &Rule,
    requires: Option<String>,
    route: &Route,
    protocol: Protocol,
    port: Port,
) -> Result<Option<String>, Fail> {
    let line = place(rule);
    let place = match &*route.place {
        "" => line.clone(),
        place => place.to_owned(),
    };
    let number = port.number;
    let at_once = port.mode != TlsMode::StartTls;
    if protocol == Protocol::Qmtp {
        if route.login.is_some() {
            return Err(Fail::temporary(format!(
                "{place} has a login, but QMTP on port {number} takes none"
            )));
        }
        if let (Some(requires), false) = (&requires, at_once) {
            return Err(Fail::temporary(format!(
                "{requires}, which QMTP on port {number} does not have"
            )));
        }
        if rule.tls() == Tls::Never && at_once {
            return Err(Fail::temporary(format!(
                "QMTP on port {number} is in TLS, which {line} forbids"
            )));
        }
    }
    if port.mode == TlsMode::Implicit && rule.tls() == Tls::Never {
        return Err(Fail::temporary(format!(
            "port {number} is in TLS from the start, which {line} forbids"
        )));
    }
    let guarded = route.login.as_ref().is_some_and(|login| !login.in_clear);
    if guarded && rule.tls() == Tls::Never {
        return Err(Fail::temporary(format!(
            "{place} has a login, which is not sent without TLS, and {line} forbids TLS"
        )));
    }
    Ok(requires.or_else(|| guarded.then(|| format!("the login of {place} requires TLS"))))
}
