//! qmail-sslremote: see qmail-sslremote(8).
//!
//! It says all it has to say on descriptor 1, in qmail-remote's report: under
//! qmail-rspawn descriptor 2 is the same pipe, and what came there would be
//! taken for a part of it.
#![forbid(unsafe_code)]

use std::env;
use std::ffi::OsString;
use std::io::{self, Write as _};
use std::net::{IpAddr, SocketAddr};
use std::os::unix::ffi::OsStringExt as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use openssl::ssl::SslRef;
use openssl::x509::X509VerifyResult;

use crate::dialer::Dialer;
use crate::dialogue::client::Refusal;
use crate::dialogue::client::smtp::Reply;
use crate::handshake::{self, Failure, Side};
use crate::keyholder::{OwnKey, Password};
use crate::policy::domaincerts::{self, OwnCertificate};
use crate::policy::{self, Check, Destinations, Port, Rule, Start, Tls};
use crate::report;
use crate::settings::{Settings, Version};
use crate::store::client::{Partner, Reference, Request, Store};
use crate::sys::{fd, sandbox, signal, socket};
use crate::text;
use crate::verify;

mod address;
mod control;
mod dns;
mod envelope;
mod link;
mod message;
mod report_text;

use control::Control;
use dns::{Dns, Trouble};
use envelope::{Envelope, Talk};
use link::Link;
use message::Message;
use report_text::{Report, Say};

/// Where qmail lives.
const QMAIL_HOME: &str = "/var/qmail";
/// The most addresses that are tried.
const MOST_CANDIDATES: usize = 100;

/// The whole program.
#[must_use]
pub fn main() -> ExitCode {
    signal::ignore_pipe();
    let words: Vec<Vec<u8>> = env::args_os().skip(1).map(OsString::into_vec).collect();
    let report = run(&words).unwrap_or_else(Report::from);
    // If descriptor 1 is gone there is nobody left to tell.
    let mut out = io::stdout().lock();
    let _ = out.write_all(&report.bytes()).and_then(|()| out.flush());
    ExitCode::SUCCESS
}

fn temporary_control(why: &str) -> Say {
    Say::new('Z', "Unable to read control files. (#4.3.0)").because(why)
}

fn run(words: &[Vec<u8>]) -> Result<Report, Say> {
    let [host, sender, recipients @ ..] = words else {
        return Err(improper());
    };
    if recipients.is_empty() {
        return Err(improper());
    }
    let home = env::var_os("QMAILHOME").unwrap_or_else(|| QMAIL_HOME.into());
    env::set_current_dir(PathBuf::from(home))
        .map_err(|_| Say::new('Z', "Unable to switch to home directory. (#4.3.0)"))?;
    let folder = Path::new("control");
    let control =
        Control::read(folder).map_err(|error| temporary_control(&report::reason(&error)))?;
    let host = String::from_utf8_lossy(host).into_owned();
    let host = host.strip_suffix('.').unwrap_or(&host).to_ascii_lowercase();
    let Some(quoted_sender) = address::quote(sender) else {
        return Err(Say::new(
            'D',
            "The sender's address cannot be sent by SMTP. (#5.1.7)",
        ));
    };
    let mut quoted = Vec::new();
    for recipient in recipients {
        let Some(one) = address::quote(recipient) else {
            return Err(Say::new(
                'D',
                "A recipient's address cannot be sent by SMTP. (#5.1.3)",
            ));
        };
        quoted.push(one);
    }
    let input = fd::inherited(0)
        .map(std::fs::File::from)
        .ok_or_else(|| Say::new('Z', "Unable to read message. (#4.3.0)"))?;
    let message =
        Message::examine(input).map_err(|_| Say::new('Z', "Unable to read message. (#4.3.0)"))?;
    if message.partial {
        return Err(Say::new(
            'D',
            "SMTP cannot transfer messages with partial final lines. (#5.6.2)",
        ));
    }
    let route = control
        .route(&host)
        .map_err(|why| temporary_control(&why))?;
    let policy = Policy::read(folder, &String::from_utf8_lossy(sender))?;
    let targets = match &route {
        Some(route) => relay_targets(&route.relay)?,
        None => mail_targets(&host)?,
    };
    let port = route.as_ref().and_then(|route| route.port);
    if route.as_ref().is_some_and(|route| route.login.is_some()) {
        return Err(Say::new(
            'Z',
            "smtproutes asks for a login, which qmail-sslremote does not do yet. (#4.3.5)",
        ));
    }
    let destination = route.as_ref().map_or(host.as_str(), |route| &route.relay);
    let candidates: Vec<Candidate> = targets
        .iter()
        .map(|target| policy.candidate(target, destination, port))
        .collect();
    // Nothing is opened after this; a kernel that refuses is no reason to keep
    // the mail.
    let _ = sandbox::confine();
    let mut delivery = Delivery {
        control: &control,
        envelope: Envelope {
            sender: &quoted_sender,
            recipients: &quoted,
        },
        message,
    };
    Ok(delivery.run(&candidates))
}

fn improper() -> Say {
    Say::new('D', "I (qmail-remote) was invoked improperly. (#5.3.5)")
}

/// A server's name and one of its addresses.
#[derive(Clone, Debug)]
struct Target {
    host: String,
    ip: IpAddr,
}

/// An address in brackets, or as it is.
fn literal(host: &str) -> Option<IpAddr> {
    let bare = host
        .strip_prefix('[')
        .and_then(|host| host.strip_suffix(']'));
    let bare = bare.map(|bare| bare.strip_prefix("ipv6:").unwrap_or(bare));
    bare.unwrap_or(host).parse().ok()
}

fn resolver() -> Result<Dns, Say> {
    let server = match env::var("DNSCACHEIP") {
        Ok(ip) if !ip.is_empty() => Some(
            ip.parse()
                .map_err(|_| temporary_control("DNSCACHEIP is not an IP address"))?,
        ),
        _ => None,
    };
    Dns::new(server).map_err(|why| no_dns("a name", &why))
}

fn no_dns(name: &str, why: &str) -> Say {
    let name = text::excerpt(name.as_bytes(), 255);
    Say::new(
        'Z',
        format!("DNS lookup of {name} failed temporarily. (#4.4.3)"),
    )
    .because(why)
}

fn no_host(name: &str) -> Say {
    let name = text::excerpt(name.as_bytes(), 255);
    Say::new(
        'D',
        format!("Sorry, I couldn't find any host named {name}. (#5.1.2)"),
    )
}

fn no_exchanger() -> Say {
    Say::new(
        'D',
        "Sorry, I couldn't find a mail exchanger or IP address. (#5.4.4)",
    )
}

/// The addresses of a relay. That it may be ourselves is the postmaster's
/// business.
fn relay_targets(relay: &str) -> Result<Vec<Target>, Say> {
    let target = |ip| Target {
        host: relay.to_owned(),
        ip,
    };
    if let Some(ip) = literal(relay) {
        return Ok(vec![target(ip)]);
    }
    match resolver()?.addresses(relay) {
        Ok(found) => Ok(found.into_iter().map(target).collect()),
        Err(Trouble::Temporary(why)) => Err(no_dns(relay, &why)),
        // A name that an administrator wrote may be there tomorrow.
        Err(_) => Err(no_dns(relay, "the relay of smtproutes has no address")),
    }
}

/// The addresses of a domain's mail exchangers, in the order in which they are
/// to be tried, up to the first that is this host.
fn mail_targets(domain: &str) -> Result<Vec<Target>, Say> {
    if let Some(ip) = literal(domain) {
        return Ok(vec![Target {
            host: domain.to_owned(),
            ip,
        }]);
    }
    let dns = resolver()?;
    let mut exchangers = match dns.exchangers(domain) {
        Ok(found) => found,
        // RFC 5321, 5.1: the domain itself.
        Err(Trouble::NoRecords) => vec![(0, domain.to_owned())],
        Err(Trouble::NoSuchName) => return Err(no_host(domain)),
        Err(Trouble::Temporary(why)) => return Err(no_dns(domain, &why)),
    };
    if exchangers.iter().any(|(_, name)| name.is_empty()) {
        if exchangers.len() == 1 {
            let name = text::excerpt(domain.as_bytes(), 255);
            let sentence = format!("Sorry, {name} accepts no mail: its MX is null. (#5.1.10)");
            return Err(Say::new('D', sentence));
        }
        exchangers.retain(|(_, name)| !name.is_empty());
    }
    shuffle(&mut exchangers);
    exchangers.sort_by_key(|(preference, _)| *preference);
    let own = socket::own_addresses().unwrap_or_default();
    let mut targets = Vec::new();
    let mut trouble = None;
    let mut our_preference = u32::MAX;
    for (preference, host) in exchangers {
        match dns.addresses(&host) {
            Ok(found) => {
                for ip in found {
                    if own.contains(&ip) || ip.is_unspecified() {
                        our_preference = our_preference.min(preference.into());
                    }
                    let host = host.clone();
                    targets.push((u32::from(preference), Target { host, ip }));
                }
            }
            Err(Trouble::Temporary(why)) => trouble = Some((host, why)),
            Err(_) => {}
        }
    }
    if targets.is_empty() {
        return Err(match trouble {
            Some((host, why)) => no_dns(&host, &why),
            None => no_exchanger(),
        });
    }
    targets.retain(|(preference, _)| *preference < our_preference);
    if targets.is_empty() {
        return Err(match trouble {
            // A better one may be there, which could not be told.
            Some((host, why)) => no_dns(&host, &why),
            None => Say {
                letter: 'D',
                text: "Sorry. Although I'm listed as a best-preference MX or A for that host,\n\
                       it isn't in my control/locals file, so I don't treat it as local. (#5.4.6)\n"
                    .to_owned(),
            },
        });
    }
    targets.truncate(MOST_CANDIDATES);
    Ok(targets.into_iter().map(|(_, target)| target).collect())
}

/// A random order; where there is no randomness, the one that DNS gave.
fn shuffle<T>(list: &mut [T]) {
    for end in (1..list.len()).rev() {
        let mut bytes = [0; 4];
        if openssl::rand::rand_bytes(&mut bytes).is_ok() {
            list.swap(end, u32::from_le_bytes(bytes) as usize % (end + 1));
        }
    }
}

/// tlsdestinations and domaincerts, for one sender.
struct Policy {
    destinations: Destinations,
    sender: Option<String>,
    own: Option<OwnCertificate>,
}

/// A server to be tried, with what is asked of it.
struct Candidate {
    target: Target,
    port: Port,
    plan: Result<Plan, Say>,
}

/// What holds for a server.
struct Plan {
    rule: Rule,
    /// Where TLS is used at all.
    store: Option<Store>,
}

impl Policy {
    fn read(folder: &Path, sender: &str) -> Result<Policy, Say> {
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
        })
    }

    /// What holds for a server of a destination.
    fn candidate(&self, target: &Target, destination: &str, port: Option<Port>) -> Candidate {
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
            anchors: Partner::anchors(rule).unwrap_or_default(),
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

/// One message on its way.
struct Delivery<'a> {
    control: &'a Control,
    envelope: Envelope<'a>,
    message: Message,
}

/// How a try at one server ended.
enum Outcome {
    /// The report stands, whatever it is.
    Done(Report),
    /// Another server may take it; else this is the report.
    Next(Say),
    /// TLS was tried and failed where it need not be used: another server, else
    /// this one without it.
    WithoutTls(Say, String),
}

impl Delivery<'_> {
    /// Tries one server after the other.
    fn run(&mut self, candidates: &[Candidate]) -> Report {
        let mut last = Say::new(
            'Z',
            "Sorry, I wasn't able to establish an SMTP connection. (#4.4.1)",
        );
        let mut again = Vec::new();
        for candidate in candidates {
            match self.attempt(candidate, None) {
                Outcome::Done(report) => return report,
                Outcome::Next(say) => last = say,
                Outcome::WithoutTls(say, why) => {
                    last = say;
                    again.push((candidate, why));
                }
            }
        }
        for (candidate, why) in again {
            match self.attempt(candidate, Some(&why)) {
                Outcome::Done(report) => return report,
                Outcome::Next(say) | Outcome::WithoutTls(say, _) => last = say,
            }
        }
        last.into()
    }

    /// One connection; with `failed`, one without TLS, for that reason.
    fn attempt(&mut self, candidate: &Candidate, failed: Option<&str>) -> Outcome {
        let plan = match &candidate.plan {
            Ok(plan) => plan,
            Err(say) => return Outcome::Next(say.clone()),
        };
        if candidate.port.start == Start::Qmtps {
            let say = "tlsdestinations asks for QMTPS, which qmail-sslremote does not do yet.";
            return Outcome::Next(Say::new('Z', format!("{say} (#4.3.5)")));
        }
        let at = SocketAddr::new(candidate.target.ip, candidate.port.number);
        let seconds = u32::try_from(self.control.connect.as_secs()).unwrap_or(u32::MAX);
        let dialer = Dialer {
            seconds: (seconds, 0),
            local_address: None,
            local_port: 0,
        };
        let socket = match dialer.connect(&[at]) {
            Ok(socket) => socket,
            Err(failures) => {
                let sentence = "Sorry, I wasn't able to establish an SMTP connection. (#4.4.1)";
                let why = failures.first().map_or_else(String::new, |failure| {
                    format!("{at}: {}", report::reason(&failure.cause))
                });
                return Outcome::Next(Say::new('Z', sentence).because(why));
            }
        };
        let _ = socket.set_nodelay(true);
        let required = plan.rule.tls() == Tls::Required;
        let use_tls = plan.rule.tls() != Tls::Never && failed.is_none();
        let mut link = Link::clear(socket);
        let mut how = match failed {
            Some(why) => format!("no TLS, which failed: {why}"),
            None => "no TLS".to_owned(),
        };
        let at_once = candidate.port.start == Start::AtOnce;
        if at_once && use_tls {
            match self.secure(link, candidate, plan) {
                Ok((secured, words)) => (link, how) = (secured, words),
                Err(failure) => return tls_failed(candidate, plan, at_once, &failure, None),
            }
        }
        // Where TLS is required, nothing that is said before it is a reason to
        // send the mail back.
        let bounce = !required || at_once;
        let ip = candidate.target.ip.to_string();
        let mut talk = Talk::new(&mut link, self.control.remote);
        let mut capabilities = match self.greet(&mut talk, &ip, bounce) {
            Ok(reply) => reply,
            Err(outcome) => return outcome,
        };
        if use_tls && !at_once {
            if capabilities.capability("STARTTLS").is_some() {
                match talk.start_tls() {
                    Ok(()) => {
                        drop(talk);
                        match self.secure(link, candidate, plan) {
                            Ok((secured, words)) => (link, how) = (secured, words),
                            Err(why) => {
                                return tls_failed(candidate, plan, at_once, &why, None);
                            }
                        }
                        talk = Talk::new(&mut link, self.control.remote);
                        // RFC 3207, 4.2: what was learnt in the clear is forgotten.
                        capabilities = match self.hello(&mut talk, &ip, true) {
                            Ok(reply) => reply,
                            Err(outcome) => return outcome,
                        };
                    }
                    Err(Refusal::Refused(_, reply)) if !required && !is_goodbye(&reply) => {
                        how = String::from("no TLS: STARTTLS was refused");
                    }
                    Err(why) => {
                        let reply = why.reply().map(<[u8]>::to_vec);
                        let said = reply.as_deref();
                        return tls_failed(candidate, plan, at_once, &bare(&why), said);
                    }
                }
            } else if required {
                talk.quit();
                let why = "it does not offer STARTTLS";
                let said = Some(capabilities.text.as_slice());
                return tls_failed(candidate, plan, at_once, why, said);
            } else {
                how = String::from("no TLS: it was not offered");
            }
        }
        let report = envelope::transmit(
            &mut talk,
            &capabilities,
            &self.envelope,
            &mut self.message,
            (&ip, &how),
        );
        Outcome::Done(report)
    }

    /// The greeting and EHLO.
    fn greet(&self, talk: &mut Talk<'_>, ip: &str, bounce: bool) -> Result<Reply, Outcome> {
        let greeting = talk
            .reply("before its greeting")
            .map_err(|why| Outcome::Next(envelope::dropped(ip, &why, false)))?;
        if greeting.code != 220 {
            let sentence = format!("Connected to {ip} but greeting failed.");
            let say = Say::new('Z', sentence).said(Some(&greeting.text));
            talk.quit();
            return Err(if greeting.is_temporary() {
                Outcome::Next(say)
            } else {
                Outcome::Done(say.into())
            });
        }
        self.hello(talk, ip, bounce)
    }

    /// EHLO, or HELO where that is refused; `bounce` where the refusal counts.
    fn hello(&self, talk: &mut Talk<'_>, ip: &str, bounce: bool) -> Result<Reply, Outcome> {
        let died = |why: Refusal| Outcome::Done(envelope::dropped(ip, &why, false).into());
        let name = &self.control.helo_host;
        let mut ask = |verb: &str| {
            talk.send(format!("{verb} {name}").as_bytes(), "at EHLO")?;
            talk.reply("after EHLO")
        };
        let reply = ask("EHLO").map_err(died)?;
        if reply.code == 250 {
            return Ok(reply);
        }
        let mut reply = ask("HELO").map_err(died)?;
        if reply.code == 250 {
            // Its lines list nothing.
            reply.text = b"250 \r\n".to_vec();
            return Ok(reply);
        }
        talk.quit();
        let letter = if bounce && reply.code >= 500 {
            'D'
        } else {
            'Z'
        };
        let sentence = format!("Connected to {ip} but my name was rejected.");
        let say = Say::new(letter, sentence).said(Some(&reply.text));
        Err(Outcome::Done(say.into()))
    }

    /// The handshake and every check; what the report will say of it.
    fn secure(
        &self,
        link: Link,
        candidate: &Candidate,
        plan: &Plan,
    ) -> Result<(Link, String), String> {
        let socket = link.into_socket().ok_or("no socket")?;
        let store = plan.store.as_ref().ok_or("TLS is never tried")?;
        let reference = Reference::new(&candidate.target.host);
        let ssl = store
            .connection(&reference, false)
            .map_err(|error| crate::store::queue(&error))?;
        let side = Side {
            kinds: &[],
            versions: (Version::Tls12, None),
        };
        let limit = self.control.connect.max(Duration::from_secs(1));
        let session =
            handshake::perform(ssl, socket, limit, side).map_err(|failure| match failure {
                Failure::Certificate(refusal) if refusal.names.is_some() => {
                    format!("its certificate names another host: {refusal}")
                }
                Failure::Certificate(refusal) => {
                    format!("its certificate did not verify: {refusal}")
                }
                other => format!("the handshake failed: {other}"),
            })?;
        store
            .approve(session.ssl())
            .map_err(|refusal| refusal.reason)?;
        let words = words(session.ssl(), &plan.rule, store);
        Ok((Link::tls(session), words))
    }
}

/// What becomes of a try whose TLS failed: never a bounce.
fn tls_failed(
    candidate: &Candidate,
    plan: &Plan,
    at_once: bool,
    why: &str,
    reply: Option<&[u8]>,
) -> Outcome {
    let Target { host, ip } = &candidate.target;
    let required = plan.rule.tls() == Tls::Required;
    let demand = match plan.rule.line {
        Some(line) if required => format!("; tlsdestinations line {line} requires TLS"),
        _ => String::new(),
    };
    let sentence = format!("Connected to {ip} ({host}) but {why}{demand}. (#4.7.5)");
    let say = Say::new('Z', sentence).said(reply);
    if required || at_once {
        return Outcome::Next(say);
    }
    Outcome::WithoutTls(say, text::excerpt(why.as_bytes(), 300))
}

/// 421: the server ends the connection.
fn is_goodbye(reply: &[u8]) -> bool {
    reply.starts_with(b"421")
}

/// A refusal in words that do not repeat the reply.
fn bare(why: &Refusal) -> String {
    match why {
        Refusal::Refused(..) => "it refused STARTTLS".to_owned(),
        Refusal::Injection(count, _) => {
            format!("it sent {count} bytes in the clear that were not asked for")
        }
        other => format!("STARTTLS failed: {other}"),
    }
}

/// `TLSv1.3 TLS_AES_256_GCM_SHA384 verified`.
fn words(ssl: &SslRef, rule: &Rule, store: &Store) -> String {
    let cipher = ssl.current_cipher().map_or("", |cipher| cipher.name());
    let named = matches!(rule.check(), Check::Chain | Check::Name | Check::ExactName);
    let good = ssl.verify_result() == X509VerifyResult::OK;
    let verdict = match verify::refusal(ssl) {
        _ if ssl.peer_certificate().is_none() => "anonymous".to_owned(),
        _ if store.pinned(ssl) => "pinned".to_owned(),
        None if named && good => "verified".to_owned(),
        Some(refusal) if named || rule.check() == Check::Pin => {
            format!("unverified: {refusal}")
        }
        _ => "unverified".to_owned(),
    };
    format!("{} {cipher} {verdict}", ssl.version_str())
}
