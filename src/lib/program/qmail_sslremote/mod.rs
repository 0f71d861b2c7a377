//! qmail-sslremote: see qmail-sslremote(8).
//!
//! It says all it has to say on descriptor 1, in qmail-remote's report: under
//! qmail-rspawn descriptor 2 is the same pipe, and what came there would be
//! taken for a part of it.
#![forbid(unsafe_code)]

use std::env;
use std::ffi::OsString;
use std::fmt;
use std::os::unix::ffi::OsStringExt as _;
use std::path::Path;
use std::process::ExitCode;

use crate::confine;
use crate::mta_sts::fetch;
use crate::options;
use crate::qmail_home;
use crate::report::{self, Fail, LastWords};
use crate::routes::{Origin, Route};
use crate::sys::sandbox::Process;
use crate::sys::{fd, process, standard};
#[cfg(feature = "internals")]
use crate::taken_over;
use crate::text;
use crate::tls_ffi;
use crate::tlsdestinations;

mod address;
mod control_files;
mod delivery;
mod envelope;
mod failure;
mod hosts;
mod message;
mod plan;
mod preview;
mod qmtp;
mod records;
mod report_text;
mod reporting;
mod session;
mod sts;
mod talk;

use control_files::ControlFiles;
use delivery::Delivery;
use envelope::Envelope;
use hosts::Resolver;
use message::Message;
use plan::{Rules, Server};
use report_text::{Report, Say};
use reporting::Reporting;
use sts::Search;

/// For a person: qmail-rspawn gives three words or more.
const HELP: &str = "usage: qmail-sslremote host sender recip [ recip ... ] < message\n       \
                    qmail-sslremote -P domain ...\nSee qmail-sslremote(8).\n";

/// The whole program.
#[must_use]
pub fn main() -> ExitCode {
    // What root's -P keeps is read by the user that delivers.
    process::open_modes();
    tls_ffi::freed::take_over();
    // What else qmail-rspawn left open is no business of a mail server's.
    fd::close_inherited();
    if standard::has_output().is_err() {
        // Mail whose report nobody gets would be sent again and again.
        return ExitCode::from(report::TEMPORARY);
    }
    // In qmail-remote's own.
    let say = Say::later("Out of memory. (#4.3.0)");
    report::prepare_last_words(LastWords {
        descriptor: 1,
        line: Report::from(say).bytes().into(),
        code: 0,
    });
    let words: Vec<Vec<u8>> = env::args_os().skip(1).map(OsString::into_vec).collect();
    if words == [fetch::WORD.as_bytes()] {
        return fetch::main();
    }
    let answer = match &*words {
        [word] if word == b"--version" => options::version("qmail-sslremote").into_bytes(),
        [word] if word == b"--help" => HELP.as_bytes().to_vec(),
        [word, domains @ ..]
            if word == b"-P"
                && !domains.is_empty()
                && !domains.iter().any(|one| one.contains(&b'@')) =>
        {
            preview(domains)
        }
        words => run(words).unwrap_or_else(Report::from).bytes(),
    };
    // If descriptor 1 has gone meanwhile there is nobody left to tell.
    let _ = standard::write(&answer);
    ExitCode::SUCCESS
}

fn temporary_control(why: impl fmt::Display) -> Say {
    Say::later("Unable to read control files. (#4.3.0)").because(why.to_string())
}

/// Goes to where qmail lives. Gives the folder of its control files.
fn enter_home() -> Result<&'static Path, Say> {
    let home = qmail_home::folder();
    env::set_current_dir(&home).map_err(|error| {
        let home = text::excerpt(home.as_os_str().as_encoded_bytes(), 300);
        let why = format!("{home} (QMAILHOME): {}", report::reason(&error));
        Say::later("Unable to switch to home directory. (#4.3.0)").because(why)
    })?;
    Ok(Path::new(qmail_home::CONTROL))
}

/// A destination as rules and routes are looked up for it.
fn spelt(host: &[u8]) -> String {
    let host = String::from_utf8_lossy(host).to_ascii_lowercase();
    host.strip_suffix('.').unwrap_or(&host).to_owned()
}

/// `-P domain ...`: no recipient's address is without an `@`, so that mail to a
/// domain of that name is mail.
fn preview(domains: &[Vec<u8>]) -> Vec<u8> {
    let told = enter_home().and_then(|folder| preview::run(folder, domains));
    told.unwrap_or_else(|say| say.text).into_bytes()
}

/// The sender's address and the recipients' as SMTP has them.
fn quoted(sender: &[u8], recipients: &[Vec<u8>]) -> Result<(Vec<u8>, Vec<Vec<u8>>), Say> {
    let sender = address::quote(sender)
        .ok_or_else(|| Say::never("The sender's address cannot be sent by SMTP. (#5.1.7)"))?;
    let quote = |one: &Vec<u8>| {
        address::quote(one)
            .ok_or_else(|| Say::never("A recipient's address cannot be sent by SMTP. (#5.1.3)"))
    };
    Ok((
        sender,
        recipients.iter().map(quote).collect::<Result<_, _>>()?,
    ))
}

/// The message of descriptor 0.
fn message() -> Result<Message, Say> {
    let unreadable = || Say::later("Unable to read message. (#4.3.0)");
    standard::input().map_err(|_| unreadable())?;
    let input = fd::inherited(0)
        .map(std::fs::File::from)
        .ok_or_else(unreadable)?;
    let message = Message::examine(input).map_err(|_| unreadable())?;
    if message.partial {
        return Err(Say::never(
            "SMTP cannot transfer messages with partial final lines. (#5.6.2)",
        ));
    }
    Ok(message)
}

/// The servers for a message, each with what is asked of it. The resolver, which has
/// a thread, ends here: nothing afterwards may have one.
fn servers(
    destination: &[u8],
    route: &Route,
    origin: &Origin,
    rules: &Rules,
    is_report: bool,
) -> Result<Vec<Server>, Say> {
    let resolver = Resolver::default();
    let search = Search::of(destination, route);
    // To a report no policy is applied.
    if !is_report {
        search.ask(&resolver)?;
    }
    let found = match &route.relay {
        Some(relay) => hosts::of_relay(&resolver, relay, &route.place)?,
        None => hosts::of_domain(&resolver, destination)?,
    };
    let found = hosts::of_family(found, origin)?;
    rules.servers(&found, &spelt(destination), route, &resolver, &search)
}

fn run(words: &[Vec<u8>]) -> Result<Report, Say> {
    let [destination, sender, recipients @ ..] = words else {
        return Err(improper());
    };
    if recipients.is_empty() {
        return Err(improper());
    }
    let folder = enter_home()?;
    let control = ControlFiles::read(folder).map_err(temporary_control)?;
    let host = spelt(destination);
    let (quoted_sender, quoted) = quoted(sender, recipients)?;
    let mut message = message()?;
    let is_report = control.is_tls_reporter(sender) && message.is_tls_report();
    let route = control
        .routes
        .look_up(&host, sender)
        .map_err(temporary_control)?;
    let sender_text = String::from_utf8_lossy(sender);
    let origin = tlsdestinations::sender_domain(&sender_text);
    let origin =
        Origin::look_up(&control.domain_ips, origin.as_deref()).map_err(temporary_control)?;
    let rules = if is_report {
        Rules::for_tls_reports(folder, &sender_text)?
    } else {
        Rules::read(folder, &sender_text)?
    };
    let servers = servers(destination, &route, &origin, &rules, is_report)?;
    let has_key = rules.has_key();
    // Its files are of no more use.
    drop(rules);
    let reporting = if is_report {
        Reporting::default()
    } else {
        Reporting::open(route.relay.as_deref().unwrap_or(&host))
    };
    confine(&reporting)?;
    let delivery = Delivery {
        control: &control,
        origin: &origin,
        envelope: Envelope {
            sender: &quoted_sender,
            recipients: &quoted,
        },
        bare: Envelope { sender, recipients },
        has_key,
        reporting,
    };
    Ok(delivery.run(&mut message, &servers))
}

/// Gives up everything that calling servers does not need: nothing is opened
/// after this.
fn confine(reporting: &Reporting) -> Result<(), Say> {
    let failed = |fail: Fail| {
        Say::later("Unable to confine the delivery. (#4.3.0)").because(fail.to_string())
    };
    confine::take_on(Process::Remote, reporting.is_on(), standard::three().1).map_err(failed)?;
    #[cfg(feature = "internals")]
    taken_over::act(taken_over::Moment::Confined(None));
    Ok(())
}

fn improper() -> Say {
    Say::never("I (qmail-remote) was invoked improperly. (#5.3.5)")
}
