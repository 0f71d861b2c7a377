//! Mails through qmail-sslremote to servers that fail at every stage: each arrives
//! once, or its report allows that it is tried again; none twice without a word,
//! none lost, none in plaintext or to an impostor where a rule forbids it.
#![forbid(unsafe_code)]

use std::fmt::Write as _;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use crate::Outcome;
use crate::dice::Dice;
use crate::harness::process::run_within;
use crate::harness::{Authority, Leaf, Place, peer, program};
use crate::mood::{Rules, Servers};
use crate::options::Settings;
use crate::sslremote::dns::Names;
use crate::sslremote::remote::{Remote, fresh_ip};

/// How often a mail is tried: with these servers' moods none needs as many.
const TRIES: usize = 60;
/// How many at once.
const AT_ONCE: usize = 8;
/// How many failures are told one by one.
const TOLD: usize = 5;
const DOMAINS: [&str; 3] = ["free.test", "required.test", "verified.test"];
const POLICY: &str = "required.test:\n~verified.test:CA\n*:\n";

/// Mails that follow from their numbers.
struct Mails {
    seed: u64,
}

impl Mails {
    fn domain(number: u64) -> &'static str {
        DOMAINS[usize::try_from(number).unwrap_or(0) % DOMAINS.len()]
    }

    /// As qmail has it on disk.
    fn text(&self, number: u64) -> String {
        let mut dice = Dice::new(self.seed, number);
        let mut text = format!("Subject: {number}\n\n");
        for _ in 0..dice.below(200) {
            let dots = ".".repeat(dice.below(3));
            let _ = writeln!(text, "{dots}{:x}", dice.next());
        }
        text
    }
}

impl Rules for Mails {
    fn wire(&self, number: u64) -> Vec<u8> {
        let mut wire = String::new();
        for line in self.text(number).lines() {
            let stuffed = if line.starts_with('.') { "." } else { "" };
            let _ = write!(wire, "{stuffed}{line}\r\n");
        }
        wire.into_bytes()
    }

    fn objection(&self, number: u64, has_tls: bool, is_impostor: bool) -> Option<String> {
        let domain = Mails::domain(number);
        match domain {
            "free.test" => None,
            _ if !has_tls => Some(format!("in plaintext to {domain}")),
            "verified.test" if is_impostor => Some(format!("to an impostor of {domain}")),
            _ => None,
        }
    }
}

/// How a mail ended.
#[derive(Debug, Default)]
struct Ended {
    /// K, D, or Z where it was tried often enough.
    letter: char,
    tries: usize,
    /// Reports that say that it may have arrived.
    doubts: usize,
}

pub fn run(settings: &Settings, seed: u64) -> Outcome {
    vec![crate::caught(|| deliver_all(settings, seed))]
}

fn deliver_all(settings: &Settings, seed: u64) -> Result<String, String> {
    if program("nsd").is_none() {
        return Err("nsd is not installed".to_owned());
    }
    let place = Place::new("soak-deliveries");
    let (first, second) = (fresh_ip(), fresh_ip());
    let mut zone = format!("one IN A {first}\ntwo IN A {second}\n");
    for domain in DOMAINS {
        let label = domain.trim_end_matches(".test");
        let _ = writeln!(zone, "{label} IN MX 10 one\n{label} IN MX 20 two");
    }
    let names = Names::serve(&place, &zone);
    let mails = Arc::new(Mails { seed });
    let leaf = || Leaf::new("x").dns("one.test").dns("two.test");
    let impostor = leaf().issue_by(&Authority::root("Another Root"));
    let servers = Servers::new(
        peer::context(&leaf().issue(), |_| ()),
        peer::context(&impostor, |_| ()),
        Arc::clone(&mails) as Arc<dyn Rules>,
        seed,
    );
    for ip in [first, second] {
        servers.listen((ip, 25).into());
    }
    let remote = Remote::new(&place)
        .dns(names.ip)
        .control("timeoutconnect", "3\n")
        .control("timeoutremote", "3\n")
        .policy(POLICY);
    let next = AtomicU64::new(0);
    let ended = Mutex::new(Vec::new());
    let begin = Instant::now();
    thread::scope(|scope| {
        for _ in 0..AT_ONCE {
            scope.spawn(|| {
                loop {
                    let number = next.fetch_add(1, Ordering::Relaxed);
                    if number >= settings.mails {
                        break;
                    }
                    let one = deliver(&remote, &mails, number);
                    ended.lock().unwrap().push((number, one));
                }
            });
        }
    });
    let ended = ended.into_inner().unwrap();
    verdict(&ended, &servers, begin.elapsed())
}

/// Until it is delivered or refused for good, as qmail-send has it tried.
fn deliver(remote: &Remote<'_>, mails: &Mails, number: u64) -> Result<Ended, String> {
    let domain = Mails::domain(number);
    let to = format!("{number}@{domain}");
    let text = mails.text(number);
    let mut ended = Ended::default();
    while ended.tries < TRIES {
        ended.tries += 1;
        let mut command = remote.command(&[domain, "a@sender.test", &to]);
        let done = run_within(&mut command, text.as_bytes(), Duration::from_secs(120));
        if done.code != Some(0) || !done.stderr.is_empty() {
            return Err(format!("{:?}: {}", done.code, done.stderr));
        }
        let report = done.text();
        let parts: Vec<&str> = report.split_terminator('\0').collect();
        let letter = |part: &str| part.chars().next().unwrap_or(' ');
        let Some((message, recipients)) = parts.split_last() else {
            return Err("an empty report".to_owned());
        };
        ended.doubts += usize::from(report.contains("Possible duplicate!"));
        ended.letter = match (recipients.first().map(|part| letter(part)), letter(message)) {
            (Some('r'), 'K') => 'K',
            (Some('h'), _) | (_, 'D') => 'D',
            (_, 'Z') | (Some('s'), 'K') => 'Z',
            _ => return Err(format!("the report {report:?}")),
        };
        if ended.letter != 'Z' {
            break;
        }
    }
    Ok(ended)
}

fn verdict(
    ended: &[(u64, Result<Ended, String>)],
    servers: &Servers,
    time: Duration,
) -> Result<String, String> {
    let mut bad = Vec::new();
    let (mut delivered, mut refused, mut doubled, mut tries) = (0, 0, 0, 0);
    for (number, one) in ended {
        let account = servers.account(*number);
        bad.extend(account.wrong.iter().map(|why| format!("{number}: {why}")));
        let one = match one {
            Ok(one) => one,
            Err(why) => {
                bad.push(format!("{number}: {why}"));
                continue;
            }
        };
        tries += one.tries;
        match one.letter {
            'K' => delivered += 1,
            'D' => refused += 1,
            _ => bad.push(format!("{number}: in the queue after {} tries", one.tries)),
        }
        doubled += usize::from(account.taken > 1);
        // The last arrival is that of the report that ends it, if that is a K.
        let told = one.doubts + usize::from(one.letter == 'K');
        if account.taken > told {
            bad.push(format!(
                "{number}: arrived {} times: {one:?}",
                account.taken
            ));
        }
        if one.letter == 'K' && account.taken == 0 {
            bad.push(format!("{number}: lost: {one:?}"));
        }
    }
    let line = format!(
        "{} mails in {tries} tries on {} connections: {delivered} delivered, {refused} refused for \
         good by a server, {doubled} of them more than once and said so, none lost, none where a \
         rule forbids it; {} s",
        ended.len(),
        servers.connections(),
        time.as_secs()
    );
    if bad.is_empty() {
        return Ok(line);
    }
    let told = bad.iter().take(TOLD).cloned().collect::<Vec<_>>();
    Err(format!(
        "{} wrong: {}; of {line}",
        bad.len(),
        told.join("; ")
    ))
}
