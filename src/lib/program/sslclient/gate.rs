//! `sslclient -W`: what applies to a destination, where a route leads it, and
//! every line of the file that is wrong or never applies. It connects to nothing,
//! and its exit code says whether the file is sound.
#![forbid(unsafe_code)]

use std::collections::hash_map::Entry;
use std::collections::{BTreeSet, HashMap};
use std::fmt::Write as _;
use std::path::Path;

use crate::domaincerts;
use crate::keyholder::OwnKey;
use crate::options::sslclient::{Options, TABLE};
use crate::report::Fail;
use crate::routes::{Route, Routes};
use crate::secret::Secret;
use crate::settings::Settings;
use crate::store::client::{Setup, Store, Trust};
use crate::store::{self, Certificate};
use crate::sys::standard;
use crate::text;
use crate::tlsdestinations::{self, Anchors, Destination, Destinations, Rule, Tls, Way};

/// The whole of `-W`.
pub fn explain(options: &Options, host: &str) -> Result<u8, Fail> {
    let Some(path) = &options.destinations else {
        return Err(TABLE.usage("-W needs -P"));
    };
    let destinations = Destinations::open(path)?;
    if destinations.is_missing() {
        return Err(super::plan::no_file(path));
    }
    let mut told = Told {
        host: text::excerpt(
            super::plan::destination(options, host).domain.as_bytes(),
            255,
        ),
        out: String::new(),
        wrong: Vec::new(),
    };
    told.destination(options, path, &destinations, host)?;
    told.own_certificate(options);
    let text = tlsdestinations::read_optional(path)?;
    told.lines(&text);
    if destinations.is_compiled_from_other(&text) {
        let wrong = "tlsdestinations.cdb is used, and was made from another file: \
                     compile it again with sslrules -t";
        told.out.extend([wrong, "\n"]);
        told.wrong.push(wrong.to_owned());
    }
    standard::write(told.out.as_bytes()).map_err(Fail::unable("write output"))?;
    if told.wrong.is_empty() {
        return Ok(0);
    }
    Err(Fail::temporary(told.wrong.join("; ")))
}

/// What is printed, and what is wrong.
struct Told {
    /// Printable.
    host: String,
    out: String,
    wrong: Vec<String>,
}

impl Told {
    /// A line about the destination.
    fn say(&mut self, text: &str) {
        let _ = writeln!(self.out, "{}: {text}", self.host);
    }

    /// The route and the rule.
    fn destination(
        &mut self,
        options: &Options,
        path: &Path,
        destinations: &Destinations,
        host: &str,
    ) -> Result<(), Fail> {
        let sender = options.sender.as_deref().unwrap_or_default();
        let own = super::plan::destination(options, host);
        let name = own.domain.strip_suffix('.').unwrap_or(own.domain);
        let name = name.to_ascii_lowercase();
        let folder = path.parent().unwrap_or(Path::new(""));
        let routes = Routes::read(folder)?;
        for stray in routes.strays() {
            let _ = writeln!(self.out, "{stray}");
        }
        let route = match routes.look_up(&name, sender.as_bytes()) {
            Ok(route) => route,
            Err(wrong) => {
                self.say(&format!("deferred: {wrong}"));
                self.wrong.push(wrong.to_string());
                return Ok(());
            }
        };
        let way = match &route.relay {
            Some(relay) => Way::Relay {
                host: relay,
                login: route.login.is_some(),
            },
            None => own.way,
        };
        let to = Destination { way, ..own };
        if let Some(leads) = route.leads() {
            self.say(&leads);
        }
        let sender = tlsdestinations::sender_domain(sender);
        let found = destinations.look_up(&to, sender.as_deref());
        let line = found.as_ref().ok().and_then(|rule| rule.line);
        match found {
            Ok(rule) => {
                self.say(&rule.in_words(&to));
                if rule.line.is_some() && !rule.weighs_records() {
                    self.say("the line stands above DANE and MTA-STS: TLSA records and policies do not count");
                }
                if let Some(cure) = rule.cure(&to) {
                    self.say(&cure);
                }
                if let (Some(line), Err(wrong)) = (rule.line, check(&rule)) {
                    self.say(&format!("deferred: tlsdestinations line {line}: {wrong}"));
                }
                self.route_and_rule(&route, &rule);
            }
            Err(wrong) => {
                self.say(&format!("deferred: {wrong}"));
                self.wrong.push(wrong.to_string());
            }
        }
        self.other_senders(&tlsdestinations::read_optional(path)?, &to, line);
        Ok(())
    }

    /// The lines that decide for other senders' mail than the one that was asked for.
    fn other_senders(&mut self, text: &[u8], to: &Destination<'_>, line: Option<usize>) {
        let destinations = Destinations::from_text(text);
        let senders: BTreeSet<String> = tlsdestinations::rules(text)
            .filter_map(|rule| rule.value.sender)
            .collect();
        for sender in senders {
            if let Ok(rule) = destinations.look_up(to, Some(&sender)) {
                if rule.line != line && rule.value.sender.as_ref() == Some(&sender) {
                    let sender = text::excerpt(sender.as_bytes(), 255);
                    self.say(&format!("with -f {sender}: {}", rule.in_words(to)));
                }
            }
        }
    }

    /// What of the rule the route takes the place of, and what it lays open.
    fn route_and_rule(&mut self, route: &Route, rule: &Rule) {
        if let (Some(port), Some(own)) = (route.port, rule.value.port) {
            if port != own {
                let place = &route.place;
                self.say(&format!("port {port} of {place} counts, not the line's"));
            }
        }
        let checked =
            rule.tls() == Tls::Required && (rule.verifies() || rule.is_pinned() || rule.value.dane);
        if route.login.is_some() && !checked {
            self.say(&format!(
                "the login of {} goes to whoever answers in the relay's place: \
                 no line has its certificate verified",
                route.place
            ));
        }
    }

    /// The lines of domaincerts that are wrong, and the one that decides.
    fn own_certificate(&mut self, options: &Options) {
        let path = options.own_certificates.as_deref();
        let text = path.and_then(|path| tlsdestinations::read_optional(path).ok());
        let text = Secret::new(text.unwrap_or_default());
        for wrong in domaincerts::wrong_lines(&text) {
            let _ = writeln!(self.out, "{wrong}");
            self.wrong.push(wrong);
        }
        let own = match super::plan::own_certificate(options) {
            Ok(Some(own)) => own,
            Ok(None) => return,
            Err(wrong) => {
                let wrong = wrong.to_string();
                self.say(&format!("deferred: {wrong}"));
                if !self.wrong.contains(&wrong) {
                    self.wrong.push(wrong);
                }
                return;
            }
        };
        let certificate = text::printable(own.certificate.as_bytes());
        let line = own.line;
        self.say(&format!(
            "our certificate is {certificate}, domaincerts line {line}"
        ));
        if let Err(wrong) = Certificate::read("domaincerts", Path::new(&own.certificate)) {
            let wrong = format!("domaincerts line {line} is wrong: {wrong}");
            self.say(&wrong);
            self.wrong.push(wrong);
        }
    }

    /// Every line of the file that is wrong or never applies.
    fn lines(&mut self, text: &[u8]) {
        let mut remarks = tlsdestinations::remarks(text);
        let mut known = HashMap::new();
        for rule in tlsdestinations::rules(text) {
            let line = rule.line.unwrap_or_default();
            if let Some(why) = checked(&rule, &mut known) {
                let key = text::excerpt(rule.key.as_bytes(), 200);
                remarks.push(tlsdestinations::Remark {
                    line,
                    wrong: true,
                    text: format!("line {line} \"{key}\" is wrong: {why}"),
                });
            }
        }
        remarks.sort_by_key(|remark| remark.line);
        let mut lines: Vec<String> = Vec::new();
        for remark in remarks {
            let _ = writeln!(self.out, "{}", remark.text);
            if remark.wrong {
                lines.push(remark.line.to_string());
            }
        }
        if !lines.is_empty() {
            let form = |one, many| text::form(lines.len(), one, many);
            let (s, are) = (form("", "s"), form("is", "are"));
            let wrong = format!("tlsdestinations line{s} {} {are} wrong", lines.join(", "));
            self.wrong.push(wrong);
        }
    }
}

/// What decides whether a rule's material can be had.
type Material = (Option<Anchors>, Option<String>, bool);

/// Why what a rule names cannot be had; each file is read once.
fn checked(rule: &Rule, known: &mut HashMap<Material, Option<String>>) -> Option<String> {
    let value = &rule.value;
    let material = (
        value.anchors.clone(),
        value.ciphers.clone(),
        rule.allows_anonymous(),
    );
    match known.entry(material) {
        Entry::Occupied(found) => found.get().clone(),
        Entry::Vacant(place) => place
            .insert(check(rule).err().map(|fail| fail.to_string()))
            .clone(),
    }
}

/// Reads a rule's CAs and takes its ciphers.
fn check(rule: &Rule) -> Result<(), Fail> {
    if let Some(ciphers) = &rule.value.ciphers {
        let unknown = store::unknown_cipher_words(ciphers)?.join(" ");
        if !unknown.is_empty() {
            let unknown = text::excerpt(unknown.as_bytes(), 200);
            let why = format!("OpenSSL does not know these ciphers: {unknown}");
            return Err(Fail::temporary(why));
        }
    }
    let settings = Settings::default().with_ciphers(rule.value.ciphers.as_ref());
    let setup = Setup {
        // The line is named where this is told.
        lines: (None, None),
        ..Setup::under(rule, Trust::Nobody)
    };
    Store::load(&settings, &setup, &OwnKey::NONE).map(|_| ())
}
