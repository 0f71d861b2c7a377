//! sslreport: see sslreport(8).
#![forbid(unsafe_code)]

use std::cell::{Cell, OnceCell};
use std::env;
use std::ffi::OsString;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use crate::calendar::{self, Day};
use crate::dns::name::DomainName;
use crate::dns::{Answer, Dns, NoAnswer};
use crate::https::Client;
use crate::options::sslreport::TABLE;
use crate::qmail_home::{self, CONTROL};
use crate::report::{Fail, Report, TEMPORARY};
use crate::sys::standard;
use crate::text;
use crate::tlsrpt::journal;
use crate::tlsrpt::record::{self, Receiver};

mod delivery;
pub mod ledger;
mod report;
mod tally;

use ledger::{Ledger, State};
use report::{MEDIA_TYPE, Reporter, TlsReport};
use tally::{Policies, Tally};

/// For how many days reports are tried: that of the day before, and once more what
/// failed of the one before that (RFC 8460, 5.5: for 24 hours).
const TRIED_DAYS: i64 = 2;
/// After how many days files are removed.
const KEPT_DAYS: i64 = 14;
/// How many domains are asked at a time.
const ASKED_TOGETHER: usize = 32;
/// How many names a message has.
const NAMED: usize = 5;

/// The whole program.
#[must_use]
pub fn main() -> ExitCode {
    TABLE.run(|report| {
        let (options, program) = TABLE.parse(env::args_os().skip(1))?;
        let run = Run::new(report, options.print, program)?;
        let complete = run.days()?;
        Ok(if complete { 0 } else { TEMPORARY })
    })
}

/// Nothing must be sent that nobody can keep account of: it would be sent again.
fn no_account(error: io::Error) -> Fail {
    let step = format!("keep account of sent reports in {}", journal::FOLDER);
    Fail::unable(step)(error)
}

/// This host's name, as it can stand in a header.
fn own_name(control: &Path) -> Result<String, Fail> {
    let name = qmail_home::own_name(control)?;
    record::host_name(&name).ok_or_else(|| Fail::temporary("control/me is not a host name"))
}

/// The address that reports come from.
fn reporter_address(control: &Path) -> Result<Option<String>, Fail> {
    let Some(address) = qmail_home::tls_reporter(control)? else {
        return Ok(None);
    };
    let usable = record::mail_address(&address).is_some();
    let wrong = || Fail::temporary("control/tlsreportfrom is not a mail address");
    usable.then_some(Some(address)).ok_or_else(wrong)
}

/// A domain that wants reports.
struct ReportedDomain {
    domain: String,
    policies: Policies,
    destinations: Vec<Receiver>,
}

/// One run.
struct Run<'a> {
    /// For lines on descriptor 2.
    log: &'a Report,
    /// `-n`.
    print: bool,
    /// What takes messages.
    program: Vec<OsString>,
    reporter: Reporter,
    folder: PathBuf,
    today: Day,
    dns: Dns,
    client: OnceCell<Client>,
    /// It was said why nothing is mailed.
    told: Cell<bool>,
}

impl<'a> Run<'a> {
    fn new(log: &'a Report, print: bool, program: Vec<OsString>) -> Result<Run<'a>, Fail> {
        let home = qmail_home::folder();
        let shown = crate::text::excerpt(home.as_os_str().as_encoded_bytes(), 300);
        // The program, and files that its arguments or SSL_CERT_FILE name, are found
        // from where this was called: the directory is not changed.
        fs::metadata(home.join("."))
            .map_err(|error| Fail::unable(format!("use {shown} (QMAILHOME)"))(error))?;
        let control = &home.join(CONTROL);
        let folder = home.join(journal::FOLDER);
        if !folder.is_dir() {
            return Err(Fail::temporary(format!(
                "there is no directory {} in {shown}: no sessions are kept; make one that belongs \
                 to the user of qmail-sslremote",
                journal::FOLDER
            )));
        }
        Ok(Run {
            log,
            print,
            program,
            reporter: Reporter {
                name: own_name(control)?,
                address: reporter_address(control)?,
            },
            folder,
            today: Day::of(calendar::now()),
            dns: Dns::configured(control)?,
            client: OnceCell::new(),
            told: Cell::new(false),
        })
    }

    /// Every day that is to be reported, the oldest first. Gives whether all went
    /// well.
    fn days(&self) -> Result<bool, Fail> {
        let mut complete = true;
        for days in (1..=TRIED_DAYS).rev() {
            complete &= self.day(self.today.before(days))?;
        }
        if !self.print {
            self.remove_old()?;
        }
        Ok(complete)
    }

    fn day(&self, day: Day) -> Result<bool, Fail> {
        let shown = format!("the sessions of {day}");
        let file = match journal::of_day(&self.folder, day) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(true),
            Err(error) => return Err(Fail::unable(format!("read {shown}"))(error)),
        };
        // Before the sessions are read: another run may be at work on them.
        let ledger = if self.print {
            Ledger::look(&self.folder, day)
        } else {
            Ledger::open(&self.folder, day)
        };
        let mut ledger = ledger.map_err(no_account)?;
        let mut tally = Tally::default();
        let mut foreign = 0;
        let read = journal::read(file, |session| {
            foreign += u64::from(!tally.add(session));
        });
        let damaged = read.map_err(|error| Fail::unable(format!("read {shown}"))(error))?;
        let damaged = damaged + foreign;
        if damaged > 0 {
            self.log.warning(format_args!(
                "{shown}: {} {} left out",
                text::count(damaged, "damaged line"),
                text::form(damaged, "is", "are")
            ));
        }
        let (wanted, mut complete) = self.wanted(tally)?;
        for wanted in &wanted {
            let ReportedDomain {
                domain,
                policies,
                destinations,
            } = wanted;
            let report = TlsReport {
                reporter: &self.reporter,
                domain,
                day,
                policies,
            };
            for destination in destinations {
                complete &= self.one(&report, destination, &mut ledger)?;
            }
        }
        Ok(complete)
    }

    /// The domains that want reports, with what is to be reported and where to; and
    /// whether all could be asked.
    ///
    /// # Errors
    /// Nobody could tell of any domain.
    fn wanted(&self, tally: Tally) -> Result<(Vec<ReportedDomain>, bool), Fail> {
        let domains: Vec<(String, Policies)> = tally.0.into_iter().collect();
        let mut wanted = Vec::new();
        let mut unknown: Vec<String> = Vec::new();
        let mut reason = String::new();
        let mut told = 0;
        let mut domains = domains.into_iter().peekable();
        while domains.peek().is_some() {
            let some: Vec<_> = domains.by_ref().take(ASKED_TOGETHER).collect();
            let names = some.iter().map(|(domain, _)| {
                DomainName::parse(format!("{}.{domain}", record::LABELS).as_bytes())
            });
            // A name that is too long to exist has no record.
            let names: Vec<DomainName> = names
                .map(|name| name.unwrap_or_else(|_| DomainName::root()))
                .collect();
            self.dns.begin_anew();
            for ((domain, policies), answer) in some.into_iter().zip(self.dns.texts_of(&names)) {
                match answer {
                    Ok(Answer { records, .. }) => {
                        told += 1;
                        wanted.push(ReportedDomain {
                            domain,
                            policies,
                            destinations: record::destinations(&records),
                        });
                    }
                    Err(NoAnswer::NoRecords | NoAnswer::NoSuchName) => told += 1,
                    Err(NoAnswer::Temporary(why) | NoAnswer::Bogus(why)) => {
                        unknown.push(text::excerpt(domain.as_bytes(), 255));
                        reason = why;
                    }
                }
            }
        }
        if unknown.is_empty() {
            return Ok((wanted, true));
        }
        let count = unknown.len();
        let all = count + told;
        let names = some_of(&unknown);
        let text = format!(
            "{count} of {all} domains could not be asked whether they want reports: {names}: {reason}"
        );
        if told == 0 {
            return Err(Fail::temporary(text));
        }
        self.log.warning(text);
        Ok((wanted, false))
    }

    /// One report to one destination; whether that needs no other try.
    ///
    /// # Errors
    /// Nobody could keep account of it: nothing more must be sent.
    fn one(
        &self,
        report: &TlsReport<'_>,
        to: &Receiver,
        ledger: &mut Ledger,
    ) -> Result<bool, Fail> {
        let (domain, rua) = (report.domain, to.to_string());
        let sent = match ledger.state(domain, &rua) {
            Some(State::Begun) if !self.print => {
                self.log.warning(format_args!(
                    "the report of {} for {domain} to {rua} was interrupted, and may have been \
                     sent: it is not sent again",
                    report.day
                ));
                ledger.note(domain, &rua, State::Sent).map_err(no_account)?;
                return Ok(true);
            }
            Some(State::Begun | State::Sent) => return Ok(true),
            Some(State::Failed) | None if self.print => return self.show(report, to),
            Some(State::Failed) | None => self.send(report, to, ledger)?,
        };
        let Some(sent) = sent else {
            return Ok(true);
        };
        let state = match sent {
            Ok(()) => State::Sent,
            Err(_) => State::Failed,
        };
        ledger.note(domain, &rua, state).map_err(no_account)?;
        if let Err(fail) = sent {
            self.log.warning(format_args!(
                "the report of {} for {domain} to {rua} is not sent: {fail}",
                report.day
            ));
            return Ok(false);
        }
        Ok(true)
    }

    /// Sends a report, once it is noted that it is; `None` where that is not wanted.
    fn send(
        &self,
        report: &TlsReport<'_>,
        to: &Receiver,
        ledger: &mut Ledger,
    ) -> Result<Option<Result<(), Fail>>, Fail> {
        let mut begin = || {
            let begun = ledger.note(report.domain, &to.to_string(), State::Begun);
            begun.map_err(no_account)
        };
        Ok(match to {
            Receiver::Mail(_) if self.program.is_empty() || !self.may_mail() => None,
            Receiver::Mail(address) => {
                let message = report.message(address)?;
                begin()?;
                let path = journal::path(&self.folder, report.day, journal::MESSAGE);
                Some(delivery::hand_over(&self.program, &message, &path))
            }
            Receiver::Post(url) => {
                let packed = report.packed()?;
                let client = self.client()?;
                begin()?;
                Some(delivery::post(client, &self.dns, url, &packed))
            }
        })
    }

    /// Whether reports are mailed; says once why not.
    fn may_mail(&self) -> bool {
        let may = self.reporter.address.is_some();
        if !may && !self.told.replace(true) {
            self.log.warning(
                "no report is mailed: control/tlsreportfrom, the address that they come from, is \
                 missing",
            );
        }
        may
    }

    /// The HTTPS client, with the system's CAs, which are read once.
    fn client(&self) -> Result<&Client, Fail> {
        if self.client.get().is_none() {
            let client = Client::new()?;
            let _ = self.client.set(client);
        }
        self.client
            .get()
            .ok_or_else(|| Fail::temporary("there is no HTTPS client"))
    }

    /// Prints a report in place of sending it.
    fn show(&self, report: &TlsReport<'_>, to: &Receiver) -> Result<bool, Fail> {
        let head = match to {
            Receiver::Mail(_) if !self.may_mail() => return Ok(true),
            Receiver::Mail(address) => report.header(address),
            Receiver::Post(_) => format!("POST {to}\nContent-Type: {MEDIA_TYPE}\n"),
        };
        let shown = format!("{head}\n{}\n\n", report.json()?);
        standard::write(shown.as_bytes()).map_err(Fail::unable("write output"))?;
        Ok(true)
    }

    /// Removes files of days that nobody needs any more.
    fn remove_old(&self) -> Result<(), Fail> {
        let unable =
            |error| Fail::unable(format!("remove old files from {}", journal::FOLDER))(error);
        let last = self.today.before(KEPT_DAYS);
        for entry in fs::read_dir(&self.folder).map_err(unable)? {
            let entry = entry.map_err(unable)?;
            let name = entry.file_name();
            let day = name.to_str().and_then(journal::day_of);
            if day.is_some_and(|day| day < last) {
                fs::remove_file(entry.path()).map_err(unable)?;
            }
        }
        Ok(())
    }
}

/// `a, b`; of many the first ones.
fn some_of(names: &[String]) -> String {
    let shown = names[..names.len().min(NAMED)].join(", ");
    match names.len().saturating_sub(NAMED) {
        0 => shown,
        more => format!("{shown} and {more} more"),
    }
}
