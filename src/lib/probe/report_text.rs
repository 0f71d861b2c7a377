//! A result for a person, fit to be pasted into a mail to the partner: what is
//! wrong first, then what was found.
#![forbid(unsafe_code)]

use std::fmt::Write as _;

use super::result::{Certificate, Chain, HostResult, Severity, StartTls, Version};
use crate::text;

/// The most lines of a report, and the most columns of a line. The line for
/// tlsdestinations alone may be longer: it must not be broken.
pub const LINES: usize = 40;
/// See [`LINES`].
pub const COLUMNS: usize = 160;

/// The report, with a newline at its end. With `colour` the weight of a finding
/// is coloured, too; the word is there in any case.
#[must_use]
pub fn report(result: &HostResult, colour: bool) -> String {
    let mut out = Vec::new();
    out.push(head(result));
    if let Some(greeting) = &result.greeting {
        out.push(format!("  greeting: {greeting}"));
    }
    if let Some(error) = &result.error {
        out.push(format!("  stopped: {error}"));
    }
    let mut lines: Vec<String> = out.iter().map(|line| cut(line)).collect();
    for one in &result.findings {
        let word = format!("{:<7}", one.severity);
        let line = cut(&format!("  {word} {}", one.text));
        lines.push(if colour {
            line.replacen(&word, &coloured(&word, one.severity), 1)
        } else {
            line
        });
    }
    lines.extend(details(result).iter().map(|line| cut(line)));
    // The last of the details are the first to go.
    let suggested = result.tlsdestinations.as_ref();
    lines.truncate(LINES - 2);
    if suggested.is_none() && result.listens {
        lines.push("  no line for tlsdestinations would hold today".to_owned());
    }
    if let Some(line) = suggested {
        lines.push("  line for tlsdestinations that would hold today:".to_owned());
        lines.push(text::printable(line.as_bytes()));
    }
    lines.join("\n") + "\n"
}

/// A line that is printable and fits.
fn cut(line: &str) -> String {
    let line = text::printable(line.as_bytes());
    if line.len() <= COLUMNS {
        return line;
    }
    format!("{}...", &line[..COLUMNS - 3])
}

fn coloured(word: &str, severity: Severity) -> String {
    let colour = match severity {
        Severity::High => 31,
        Severity::Medium => 33,
        Severity::Low => 36,
        Severity::Note => 2,
    };
    format!("\x1b[{colour}m{word}\x1b[0m")
}

fn head(result: &HostResult) -> String {
    let mut line = format!("{} port {}", result.host, result.port);
    if let Some(address) = result.address.as_deref().filter(|one| *one != result.host) {
        let _ = write!(line, " ({address})");
    }
    if let Some(domain) = &result.mx_of {
        let _ = write!(line, ", MX of {domain}");
    }
    let tls = match result.starttls {
        Some(StartTls::Offered) => "STARTTLS",
        Some(StartTls::Missing) => "no STARTTLS",
        Some(StartTls::Refused) => "refused",
        Some(StartTls::NotApplicable) => "TLS at once",
        None if result.listens => "no answer",
        None => "not reached",
    };
    let _ = write!(line, ": {}, {tls}", result.protocol);
    line
}

/// What was found, in lines.
fn details(result: &HostResult) -> Vec<String> {
    let mut out = Vec::new();
    if result.has_tls() {
        out.push(versions(result));
        out.extend(suites(result));
        out.extend(exchange(result));
        out.extend(behaviour(result));
    }
    for one in &result.certificates {
        out.extend(certificate(one));
    }
    out.extend(logins(result));
    if let Some(lost) = result.cannot_reach.as_ref().filter(|lost| !lost.is_empty()) {
        out.push(format!("  cannot connect: {}", lost.join(", ")));
    }
    out.push(format!(
        "  {}, {}, {:.1} s",
        text::count(result.connections, "connection"),
        text::count(result.handshakes, "handshake"),
        result.seconds
    ));
    out
}

fn versions(result: &HostResult) -> String {
    let names = |known: Option<bool>| {
        let all = Version::ALL.into_iter().rev();
        let all = all.filter(|version| result.knows(*version) == known);
        let names: Vec<String> = all.map(|version| version.to_string()).collect();
        names.join(" ")
    };
    let parts = [
        ("", names(Some(true))),
        ("not ", names(Some(false))),
        ("not asked: ", names(None)),
    ];
    let parts = parts.iter().filter(|(_, names)| !names.is_empty());
    let parts: Vec<String> = parts.map(|(word, names)| [*word, names].concat()).collect();
    format!("  versions: {}", parts.join("; "))
}

fn suites(result: &HostResult) -> Vec<String> {
    let mut out = Vec::new();
    let preferred = result.preferred.iter().flatten();
    for (version, suite) in preferred.rev() {
        let taken = result.suites.as_ref().and_then(|all| all.get(version));
        let more = taken.map_or(0, |all| all.iter().filter(|one| *one != suite).count());
        let others = taken.iter().copied().flatten().filter(|one| *one != suite);
        let others: Vec<&str> = others.map(String::as_str).collect();
        let others = others.join(" ");
        out.push(match (more, result.listed_all) {
            (0, Some(true)) => format!("  {version}: accepts {suite} only"),
            (0, _) => format!("  {version}: prefers {suite}"),
            (_, Some(true)) => format!("  {version}: prefers {suite}, accepts {others}"),
            // Nobody asked for all of them.
            _ => format!("  {version}: prefers {suite}, accepts others such as {others}"),
        });
    }
    if let Some(weak) = result.weak.as_ref().filter(|weak| !weak.is_empty()) {
        out.push(format!("  weak suites: {}", weak.join(" ")));
    }
    out
}

fn exchange(result: &HostResult) -> Option<String> {
    let mut parts = Vec::new();
    if let Some(groups) = result.groups.as_ref().filter(|groups| !groups.is_empty()) {
        let all = result.listed_all == Some(true);
        let seen = if all { "" } else { "seen: " };
        parts.push(format!("{seen}{}", groups.join(" ")));
    }
    if let Some(bits) = result.dh_bits {
        let prime = result.dh_prime.as_deref().unwrap_or("unknown");
        parts.push(match prime {
            "unknown" => format!("DHE with {bits} bits, a prime of its own"),
            known => format!("DHE with {bits} bits ({known})"),
        });
    }
    (!parts.is_empty()).then(|| format!("  key exchange: {}", parts.join("; ")))
}

fn behaviour(result: &HostResult) -> Option<String> {
    let mut parts = Vec::new();
    let mut say = |known: Option<bool>, yes: &str, no: &str| {
        parts.extend(known.map(|known| if known { yes } else { no }.to_owned()));
    };
    say(
        result.server_order,
        "order of the server",
        "order of the client",
    );
    say(
        result.large_hello,
        "accepts a large hello",
        "refuses a large hello",
    );
    say(result.grease, "accepts GREASE", "refuses GREASE");
    let resumed = result.resumption.iter().flatten();
    parts.extend(resumed.map(|(version, resumed)| {
        format!(
            "{version} {}",
            if *resumed {
                "resumes"
            } else {
                "does not resume"
            }
        )
    }));
    (!parts.is_empty()).then(|| format!("  behavior: {}", parts.join(", ")))
}

fn certificate(one: &Certificate) -> Vec<String> {
    let day = |time: &str| time.get(..10).unwrap_or_default().to_owned();
    let chain = match one.chain {
        Chain::Complete => "complete",
        Chain::Incomplete => "incomplete",
        Chain::Misordered => "out of order",
        Chain::SelfSigned => "self-signed",
        Chain::Unknown => "unknown",
    };
    let verify = if one.verifies() {
        "verifies"
    } else {
        &one.verify
    };
    let name = if one.name_ok == Some(false) {
        "does not name the host"
    } else {
        "names the host"
    };
    let names: Vec<String> = one.names.iter().take(8).cloned().collect();
    let names = match one.names.len() {
        0 => "no names".to_owned(),
        1..=8 => format!("names {}", names.join(" ")),
        all => format!("names {} and {} more", names.join(" "), all - 8),
    };
    vec![
        format!(
            "  certificate {} {}: {} to {}, chain {chain}; {verify}; {name}",
            one.key,
            one.bits,
            day(&one.not_before),
            day(&one.not_after)
        ),
        format!("    subject {}, issuer {}", one.subject, one.issuer),
        format!("    {names}; {}", one.signature),
        format!("    sha256 {}", one.sha256),
        format!("    spki   {}", one.spki),
    ]
}

fn logins(result: &HostResult) -> Option<String> {
    let list = |all: &[String]| {
        if all.is_empty() {
            "none".to_owned()
        } else {
            all.join(" ")
        }
    };
    let before = result.auth_before_tls.as_deref();
    let after = result.auth_after_tls.as_deref();
    match (before, after) {
        (None, None) => None,
        (Some(before), None) => Some(format!("  logins offered before TLS: {}", list(before))),
        (None, Some(after)) => Some(format!("  logins offered inside TLS: {}", list(after))),
        (Some(before), Some(after)) => Some(format!(
            "  logins offered before TLS: {}; inside: {}",
            list(before),
            list(after)
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::super::result::Finding;
    use super::*;

    #[test]
    fn samples_are_not_called_all() {
        let mut result = HostResult {
            versions: Some([(Version::Tls12, Some(true))].into()),
            suites: Some([(Version::Tls12, vec!["A".to_owned(), "B".to_owned()])].into()),
            preferred: Some([(Version::Tls12, "A".to_owned())].into()),
            groups: Some(vec!["X25519".to_owned()]),
            ..HostResult::default()
        };
        for (all, suites, groups) in [
            (None, "prefers A, accepts others such as B", "seen: X25519"),
            (
                Some(false),
                "prefers A, accepts others such as B",
                "seen: X25519",
            ),
            (Some(true), "prefers A, accepts B", "X25519"),
        ] {
            result.listed_all = all;
            let text = report(&result, false);
            assert!(text.contains(&format!("  TLSv1.2: {suites}\n")), "{text}");
            assert!(
                text.contains(&format!("  key exchange: {groups}\n")),
                "{text}"
            );
        }
    }

    #[test]
    fn a_report_keeps_to_its_lines_and_columns_and_passes_no_controls() {
        let finding = |at: usize| Finding {
            severity: Severity::High,
            code: format!("code-{at}"),
            text: format!("sentence {at} {}", "x".repeat(120)),
        };
        let result = HostResult {
            host: "mx.example\u{1b}[2J".to_owned(),
            port: 25,
            listens: true,
            greeting: Some("220 \u{7}".to_owned() + &"y".repeat(4000)),
            error: Some("z".repeat(500)),
            findings: (0..60).map(finding).collect(),
            tlsdestinations: Some("%mx.example:spki:00".to_owned()),
            ..HostResult::default()
        };
        for colour in [false, true] {
            let text = report(&result, colour);
            assert!(text.lines().count() <= LINES);
            assert!(text.contains("\n%mx.example:spki:00\n") && text.ends_with('\n'));
            assert!(text.contains("  line for tlsdestinations"));
            assert_eq!(
                text.contains("\u{1b}[31mhigh   \u{1b}[0m sentence 0"),
                colour
            );
            assert!(!text.contains("\u{1b}[2J") && !text.contains('\u{7}'));
            let plain = text.replace("\u{1b}[31m", "").replace("\u{1b}[0m", "");
            assert!(plain.lines().all(|line| line.len() <= COLUMNS), "{text}");
        }
    }
}
