//! A report: the JSON of RFC 8460, 4.4, packed, and the message that carries it (5.3).
#![forbid(unsafe_code)]

use std::fmt::Write as _;
use std::io::{self, Write as _};

use flate2::Compression;
use flate2::write::GzEncoder;
use openssl::sha::sha256;
use serde::Serialize;

use super::tally::Policies;
use crate::calendar::{self, Day};
use crate::report::Fail;
use crate::text;
use crate::tlsrpt::{AppliedPolicy, Place, ResultType};

/// The type of a packed report.
pub const MEDIA_TYPE: &str = "application/tlsrpt+gzip";
/// The longest line of base64: RFC 2045, 6.8.
const LINE: usize = 76;

/// Who reports.
pub struct Reporter {
    /// This host's name.
    pub name: String,
    /// The address that reports come from.
    pub address: Option<String>,
}

impl Reporter {
    /// Whom to ask about a report.
    fn contact(&self) -> String {
        let postmaster = || format!("postmaster@{}", self.name);
        self.address.clone().unwrap_or_else(postmaster)
    }
}

/// A domain's report of a day.
pub struct TlsReport<'a> {
    /// Who reports.
    pub reporter: &'a Reporter,
    /// To whom.
    pub domain: &'a str,
    /// Of which day.
    pub day: Day,
    /// What.
    pub policies: &'a Policies,
}

#[derive(Serialize)]
#[serde(rename_all = "kebab-case")]
struct Document<'a> {
    organization_name: &'a str,
    date_range: Range,
    contact_info: String,
    report_id: String,
    policies: Vec<PolicyResult<'a>>,
}

#[derive(Serialize)]
#[serde(rename_all = "kebab-case")]
struct Range {
    start_datetime: String,
    end_datetime: String,
}

#[derive(Serialize)]
#[serde(rename_all = "kebab-case")]
struct PolicyResult<'a> {
    policy: &'a AppliedPolicy,
    summary: Summary,
    failure_details: Vec<Failures<'a>>,
}

#[derive(Serialize)]
#[serde(rename_all = "kebab-case")]
struct Summary {
    total_successful_session_count: u64,
    total_failure_session_count: u64,
}

#[derive(Serialize)]
#[serde(rename_all = "kebab-case")]
struct Failures<'a> {
    result_type: ResultType,
    #[serde(flatten)]
    place: &'a Place,
    failed_session_count: u64,
}

impl TlsReport<'_> {
    /// What tells it from all others; the same whenever it is made.
    fn id(&self) -> String {
        format!("{}.{}@{}", self.day, self.domain, self.reporter.name)
    }

    /// The JSON.
    ///
    /// # Errors
    /// None that is known.
    pub fn json(&self) -> Result<String, Fail> {
        let policies = self.policies.iter().map(|(policy, sessions)| PolicyResult {
            policy,
            summary: Summary {
                total_successful_session_count: sessions.good,
                total_failure_session_count: sessions.failed.values().sum(),
            },
            failure_details: sessions
                .failed
                .iter()
                .map(|((result, place), count)| Failures {
                    result_type: *result,
                    place,
                    failed_session_count: *count,
                })
                .collect(),
        });
        let document = Document {
            organization_name: &self.reporter.name,
            date_range: Range {
                start_datetime: calendar::at(self.day.begin()),
                end_datetime: calendar::at(self.day.end()),
            },
            contact_info: self.reporter.contact(),
            report_id: self.id(),
            policies: policies.collect(),
        };
        let json = serde_json::to_string_pretty(&document);
        json.map_err(|error| Fail::from(error.to_string()).of("unable to write JSON"))
    }

    /// The JSON, packed.
    ///
    /// # Errors
    /// As [`TlsReport::json`].
    pub fn packed(&self) -> Result<Vec<u8>, Fail> {
        let json = self.json()?;
        let packed = || -> io::Result<Vec<u8>> {
            let mut packer = GzEncoder::new(Vec::new(), Compression::default());
            packer.write_all(json.as_bytes())?;
            packer.finish()
        };
        packed().map_err(Fail::unable("pack a report"))
    }

    /// The name of the packed file: RFC 8460, 5.1.
    fn file_name(&self) -> String {
        let (sender, domain) = (&self.reporter.name, self.domain);
        let (begin, end) = (self.day.begin(), self.day.end());
        format!("{sender}!{domain}!{begin}!{end}.json.gz")
    }

    /// The header of the message, up to its type.
    pub fn header(&self, to: &str) -> String {
        let from = self.reporter.contact();
        let (id, domain, sender) = (self.id(), self.domain, &self.reporter.name);
        let date = calendar::in_mail(calendar::now());
        let unique = text::hex(&sha256(to.as_bytes())[..8]);
        format!(
            "Return-Path: <{from}>\n\
             From: {from}\n\
             To: {to}\n\
             Date: {date}\n\
             Message-ID: <{}.{unique}.{domain}@{sender}>\n\
             Subject: Report Domain: {domain}\n \
             Submitter: {sender}\n \
             Report-ID: <{id}>\n\
             TLS-Report-Domain: {domain}\n\
             TLS-Report-Submitter: {sender}\n\
             Auto-Submitted: auto-generated\n\
             MIME-Version: 1.0\n",
            self.day
        )
    }

    /// The whole message, with lines as local programs take them.
    ///
    /// # Errors
    /// As [`TlsReport::json`].
    pub fn message(&self, to: &str) -> Result<String, Fail> {
        let packed = self.packed()?;
        let boundary = format!("=_{}", text::hex(&sha256(&packed)[..16]));
        let (domain, day, sender) = (self.domain, self.day, &self.reporter.name);
        let mut message = self.header(to);
        let _ = write!(
            message,
            "Content-Type: multipart/report; report-type=tlsrpt;\n \
             boundary=\"{boundary}\"\n\n\
             --{boundary}\n\
             Content-Type: text/plain; charset=us-ascii\n\n\
             This is the report of {sender}\n\
             on TLS with the mail servers of {domain}\n\
             on {day} (UTC), as RFC 8460 has it.\n\
             --{boundary}\n\
             Content-Type: {MEDIA_TYPE}\n\
             Content-Transfer-Encoding: base64\n\
             Content-Disposition: attachment;\n \
             filename=\"{}\"\n\n",
            self.file_name()
        );
        let encoded = openssl::base64::encode_block(&packed);
        let mut rest = encoded.as_str();
        while !rest.is_empty() {
            let (line, behind) = rest.split_at(rest.len().min(LINE));
            message.push_str(line);
            message.push('\n');
            rest = behind;
        }
        let _ = writeln!(message, "--{boundary}--");
        Ok(message)
    }
}
