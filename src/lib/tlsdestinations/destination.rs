//! Where mail goes: under which names a rule is looked up for it, and which names
//! the server's certificate may bear.
#![forbid(unsafe_code)]

use super::key::{RuleForm, Scope, canonical};
use super::{Check, Rule};
use crate::host_name::{HostName, Reference};
use crate::text;

/// Where mail goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Destination<'a> {
    /// The recipient's domain.
    pub domain: &'a str,
    /// The server that is called for it.
    pub way: Way<'a>,
}

/// How a server was chosen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way<'a> {
    /// It is the domain itself.
    Itself,
    /// A route names it.
    Relay {
        /// Its name or address.
        host: &'a str,
        /// The route has a login, which it gets.
        login: bool,
    },
    /// MX names it.
    Exchanger {
        /// Its name.
        host: &'a str,
        /// DNSSEC proves that MX does.
        signed: bool,
    },
}

/// Through which of a destination's names a rule was found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FoundBy {
    /// The relay's.
    Relay,
    /// The recipient's domain.
    Domain,
    /// The MX host's.
    Exchanger,
    /// None: it is everybody's.
    Everybody,
}

impl<'a> Destination<'a> {
    /// A server that is called by the name that rules are looked up for.
    #[must_use]
    pub fn itself(domain: &'a str) -> Destination<'a> {
        Destination {
            domain,
            way: Way::Itself,
        }
    }

    /// The names that the rows above those for everybody are looked up for, in turn.
    pub(super) fn hosts(&self) -> Vec<(FoundBy, String)> {
        let domain = (FoundBy::Domain, canonical(self.domain));
        match self.way {
            Way::Itself => vec![domain],
            Way::Relay { host, .. } => vec![(FoundBy::Relay, canonical(host)), domain],
            Way::Exchanger { host, .. } => vec![domain, (FoundBy::Exchanger, canonical(host))],
        }
    }
}

/// A name that a certificate may bear.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AllowedName {
    /// The name.
    pub name: Reference,
    /// A wildcard of the certificate's may stand for it.
    pub wildcards: bool,
    /// An answer of DNS that nobody signed gave it: who forges it chooses it.
    pub from_dns: bool,
}

impl Rule {
    /// The names of which a server's certificate must bear one; none for a destination
    /// that no certificate can name.
    #[must_use]
    pub fn names(&self, to: &Destination<'_>) -> Vec<AllowedName> {
        let texts = self.texts_of_names(to).into_iter();
        let name = |(text, from_dns): (&str, bool)| {
            let name = match text.strip_prefix('.') {
                Some(domain) => HostName::parse(domain).map(Reference::Below),
                None => Reference::parse(text),
            };
            Some(AllowedName {
                name: name.ok()?,
                wildcards: self.form != RuleForm::Exact,
                from_dns,
            })
        };
        texts.filter_map(name).collect()
    }

    /// The same as they are written, and whether only DNS says so.
    fn texts_of_names<'a>(&'a self, to: &Destination<'a>) -> Vec<(&'a str, bool)> {
        if !self.value.names.is_empty() {
            let names = self.value.names.iter();
            return names.map(|name| (name.as_str(), false)).collect();
        }
        if let (RuleForm::Exact, Scope::Host(key)) = (self.form, &self.scope) {
            return vec![(key, self.by == FoundBy::Exchanger && to.is_from_dns())];
        }
        let domain = (to.domain, false);
        match to.way {
            Way::Itself => vec![domain],
            // Who owns the domain is not who may have the password.
            Way::Relay { host, login } if login || self.by != FoundBy::Domain => {
                vec![(host, false)]
            }
            Way::Relay { host, .. } => vec![(host, false), domain],
            Way::Exchanger { .. } if self.uncounted(to).is_some() => vec![domain],
            Way::Exchanger { host, .. } => {
                let from_dns = self.by != FoundBy::Domain && to.is_from_dns();
                vec![(host, from_dns), domain]
            }
        }
    }

    /// The MX host, where its name does not count under a line for the domain:
    /// whoever forges an answer that is not signed chooses it, and may well have a
    /// certificate for it, unless the line has a CA of its own or the name is the
    /// domain's.
    #[must_use]
    pub fn uncounted<'a>(&self, to: &Destination<'a>) -> Option<&'a str> {
        let named = matches!(self.check(), Check::Name | Check::ExactName)
            && self.value.names.is_empty()
            && self.by == FoundBy::Domain
            && !(self.check() == Check::ExactName && matches!(self.scope, Scope::Host(_)));
        let own_trust = self.value.anchors.is_some() || self.is_pinned();
        to.chosen_by_dns().filter(|_| named && !own_trust)
    }

    /// The same for DANE: the MX host, where its records do not count under a line for
    /// the domain.
    #[cfg(feature = "remote")]
    #[must_use]
    pub fn unproved<'a>(&self, to: &Destination<'a>) -> Option<&'a str> {
        let asked = self.value.dane && self.by == FoundBy::Domain;
        to.chosen_by_dns().filter(|_| asked)
    }
}

impl Rule {
    /// What makes a name count that does not, if one does not: words that end a
    /// sentence.
    #[must_use]
    pub fn cure(&self, to: &Destination<'_>) -> Option<String> {
        let host = text::excerpt(self.uncounted(to)?.as_bytes(), 255);
        let line = self.line.unwrap_or_default();
        Some(format!(
            "{host} does not count, since DNS gave it without a signature: if it is the \
             partner's, put it into the fifth field (names) of tlsdestinations line {line}"
        ))
    }
}

impl<'a> Destination<'a> {
    /// The MX host, where whoever forges DNS can choose it: nobody signed the answer
    /// that names it, and it is not the domain's own.
    fn chosen_by_dns(&self) -> Option<&'a str> {
        let Way::Exchanger { host, .. } = self.way else {
            return None;
        };
        let (name, domain) = (canonical(host), canonical(self.domain));
        let below = name
            .strip_suffix(domain.as_str())
            .is_some_and(|rest| rest.is_empty() || rest.ends_with('.'));
        (self.is_from_dns() && !below).then_some(host)
    }

    /// Whether the server's name comes from an answer that nobody signed.
    #[must_use]
    pub fn is_from_dns(&self) -> bool {
        match self.way {
            Way::Exchanger { host, signed } => !signed && canonical(host) != canonical(self.domain),
            Way::Itself | Way::Relay { .. } => false,
        }
    }
}
