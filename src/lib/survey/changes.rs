//! Two runs compared: what got better and worse at each host, which hosts are new
//! and which are gone.
#![forbid(unsafe_code)]

use std::collections::{BTreeMap, HashMap};

use serde::Serialize;

use super::printable;
use crate::probe::result::{Agreement, HostResult, Severity, Version};

/// What was probed: a host, a port and an address family, so that a new address of
/// the same host is no new host.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Place {
    host: String,
    port: u16,
    is_six: bool,
}

impl Place {
    /// The same over the other family.
    fn other(&self) -> Place {
        Place {
            is_six: !self.is_six,
            ..self.clone()
        }
    }
}

/// What a comparison needs of a result.
struct State {
    listens: bool,
    error: Option<String>,
    versions: Option<[Option<bool>; Version::ALL.len()]>,
    findings: HashMap<String, (Severity, String)>,
    asked: [bool; AREAS.len()],
    /// The probe ended early.
    is_part: bool,
    dane: Option<Agreement>,
    sts: Option<Agreement>,
}

/// One run, as far as it is compared.
#[derive(Default)]
pub struct Run(BTreeMap<Place, State>);

/// A host and what has changed there.
#[derive(Debug, Serialize)]
pub struct Change {
    /// The host.
    pub host: String,
    /// Its port.
    pub port: u16,
    /// `IPv4` or `IPv6`, where the host was probed over both.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub family: Option<&'static str>,
    /// A few words each; none where the host is new or gone.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub what: Vec<String>,
}

/// A comparison. A host may be both better and worse.
#[derive(Debug, Default, Serialize)]
pub struct Changes {
    /// Where something got better.
    pub better: Vec<Change>,
    /// Where something got worse.
    pub worse: Vec<Change>,
    /// Hosts that only the later run has.
    pub new: Vec<Change>,
    /// Hosts that only the earlier run has.
    pub gone: Vec<Change>,
    /// How many hosts are as they were.
    pub unchanged: u64,
}

impl Run {
    /// Notes one result. Of two for the same place the later one counts.
    pub fn add(&mut self, result: &HostResult) {
        let address = result.address.as_deref().unwrap_or_default();
        let place = Place {
            host: printable(&result.host),
            port: result.port,
            is_six: address.contains(':'),
        };
        let findings = result.findings.iter();
        let grave = findings.filter(|one| one.severity < Severity::Note);
        let state = State {
            listens: result.listens,
            error: result.error.as_deref().map(printable),
            versions: result
                .has_tls()
                .then(|| Version::ALL.map(|version| result.knows(version))),
            findings: grave
                .map(|one| {
                    let code = printable(&one.code);
                    (code, (one.severity, printable(&one.text)))
                })
                .collect(),
            asked: asked(result),
            is_part: result.error.is_some(),
            dane: result.dane,
            sts: result.sts,
        };
        self.0.insert(place, state);
    }

    /// What is known of a place of the run `of`. Where both runs have the host over
    /// one family alone, it does not matter which: it may have changed, or not be
    /// known because the host no longer resolves.
    fn state(&self, place: &Place, of: &Run) -> Option<&State> {
        self.0.get(place).or_else(|| {
            let other = place.other();
            self.0.get(&other).filter(|_| !of.0.contains_key(&other))
        })
    }
}

/// Findings that come from the same questions.
const AREAS: [&[&str]; 7] = [
    &["weak-suite", "small-dh"],
    &[
        "expired",
        "not-yet-valid",
        "expires-soon",
        "self-signed",
        "unverified",
        "chain-incomplete",
        "chain-misordered",
        "name-mismatch",
        "small-key",
        "weak-signature",
    ],
    &[
        "large-hello-refused",
        "grease-refused",
        "no-sni-refused",
        "wrong-sni-refused",
        "no-secure-renegotiation",
        "no-extended-master-secret",
    ],
    &[
        "rsa-only-senders-refused",
        "senders-without-tls13-refused",
        "senders-refused",
    ],
    &["injection"],
    &["auth-in-clear"],
    &["dane-mismatch", "dane-bogus"],
];

/// Which of these were asked of a host.
fn asked(result: &HostResult) -> [bool; AREAS.len()] {
    [
        result.weak.is_some(),
        !result.certificates.is_empty(),
        result.large_hello.is_some(),
        result.cannot_reach.is_some(),
        result.injection.is_some(),
        result.auth_before_tls.is_some(),
        result.dane.is_some(),
    ]
}

/// Whether a finding that `other` has may be there in `this`, where nobody looked:
/// the same was asked in the one run and not in the other, or that ended early.
fn may_be_there(code: &str, this: &State, other: &State) -> bool {
    let area = AREAS.iter().position(|codes| codes.contains(&code));
    let unasked = area.is_some_and(|area| other.asked[area] && !this.asked[area]);
    unasked || this.is_part && !other.is_part
}

/// What is different in the later of two runs.
#[must_use]
pub fn compare(old: &Run, new: &Run) -> Changes {
    let mut changes = Changes::default();
    for (place, then) in &old.0 {
        let Some(now) = new.state(place, old) else {
            changes.gone.push(change(old, place, Vec::new()));
            continue;
        };
        let (better, worse) = differences(then, now);
        if better.is_empty() && worse.is_empty() {
            changes.unchanged += 1;
        }
        if !better.is_empty() {
            changes.better.push(change(old, place, better));
        }
        if !worse.is_empty() {
            changes.worse.push(change(old, place, worse));
        }
    }
    let added = new.0.keys();
    let added = added.filter(|place| old.state(place, new).is_none());
    changes.new = added.map(|place| change(new, place, Vec::new())).collect();
    changes
}

fn change(run: &Run, place: &Place, what: Vec<String>) -> Change {
    Change {
        host: place.host.clone(),
        port: place.port,
        family: run
            .0
            .contains_key(&place.other())
            .then_some(if place.is_six { "IPv6" } else { "IPv4" }),
        what,
    }
}

/// What got better and what got worse.
fn differences(then: &State, now: &State) -> (Vec<String>, Vec<String>) {
    let (mut better, mut worse) = (Vec::new(), Vec::new());
    let why = |state: &State| match &state.error {
        Some(why) => format!(": {why}"),
        None => String::new(),
    };
    // All else follows from these two.
    match (then.listens, now.listens) {
        (false, true) => return (vec!["can be reached again".to_owned()], worse),
        (true, false) => return (better, vec![format!("cannot be reached{}", why(now))]),
        (false, false) => return (better, worse),
        (true, true) => {}
    }
    match (&then.versions, &now.versions) {
        (None, Some(_)) => better.push("speaks TLS".to_owned()),
        (Some(_), None) => worse.push(format!("no longer speaks TLS{}", why(now))),
        (Some(then), Some(now)) => versions(then, now, &mut better, &mut worse),
        (None, None) => {}
    }
    findings(then, now, &mut better, &mut worse);
    for (name, then, now) in [
        ("TLSA records", then.dane, now.dane),
        ("MTA-STS", then.sts, now.sts),
    ] {
        match (then, now) {
            (Some(Agreement::None), Some(Agreement::Ok)) => better.push(format!("has {name}")),
            (Some(Agreement::Ok), Some(Agreement::None)) => {
                worse.push(format!("no longer has {name}"));
            }
            // A mismatch is a finding.
            _ => {}
        }
    }
    (better, worse)
}

/// Old versions are better gone, new ones better there; of what one run did not ask
/// nothing is said.
fn versions(
    then: &[Option<bool>],
    now: &[Option<bool>],
    better: &mut Vec<String>,
    worse: &mut Vec<String>,
) {
    for (at, version) in Version::ALL.into_iter().enumerate() {
        let good = version >= Version::Tls12;
        let (list, words) = match (then[at], now[at]) {
            (Some(false), Some(true)) if good => (&mut *better, "speaks"),
            (Some(false), Some(true)) => (&mut *worse, "speaks"),
            (Some(true), Some(false)) if good => (&mut *worse, "no longer speaks"),
            (Some(true), Some(false)) => (&mut *better, "no longer speaks"),
            _ => continue,
        };
        list.push(format!("{words} {version}"));
    }
}

fn findings(then: &State, now: &State, better: &mut Vec<String>, worse: &mut Vec<String>) {
    let mut codes: Vec<&String> = then.findings.keys().chain(now.findings.keys()).collect();
    codes.sort();
    codes.dedup();
    for code in codes {
        match (then.findings.get(code), now.findings.get(code)) {
            (Some(_), None) if may_be_there(code, now, then) => {}
            (None, Some(_)) if may_be_there(code, then, now) => {}
            (Some((severity, _)), None) => better.push(format!("{code} ({severity}) is gone")),
            (None, Some((severity, text))) => worse.push(format!("{code} ({severity}): {text}")),
            (Some((then, _)), Some((now, _))) if now > then => {
                better.push(format!("{code} is {now}, was {then}"));
            }
            (Some((then, _)), Some((now, text))) if now < then => {
                worse.push(format!("{code} is {now}, was {then}: {text}"));
            }
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::probe::result::Finding;

    fn host(name: &str, address: &str, versions: &[Version], codes: &[&str]) -> HostResult {
        HostResult {
            host: name.to_owned(),
            port: 25,
            address: Some(address.to_owned()),
            listens: true,
            versions: Some(
                Version::ALL
                    .into_iter()
                    .map(|one| (one, Some(versions.contains(&one))))
                    .collect(),
            ),
            findings: codes
                .iter()
                .map(|code| Finding {
                    severity: match *code {
                        "small" => Severity::Note,
                        "weak-suite" => Severity::Low,
                        _ => Severity::High,
                    },
                    code: (*code).to_owned(),
                    text: "Why.".to_owned(),
                })
                .collect(),
            ..HostResult::default()
        }
    }

    fn run(results: &[HostResult]) -> Run {
        let mut run = Run::default();
        for result in results {
            run.add(result);
        }
        run
    }

    #[test]
    fn each_host_stands_where_it_belongs() {
        use Version::{Tls10, Tls12, Tls13};
        let down = HostResult {
            listens: false,
            versions: None,
            error: Some("connection refused".to_owned()),
            ..host("down", "192.0.2.4", &[], &[])
        };
        let old = run(&[
            host("same", "192.0.2.1", &[Tls12], &["expired"]),
            host("both", "192.0.2.2", &[Tls10, Tls12], &["weak-suite"]),
            host("gone", "192.0.2.3", &[Tls12], &[]),
            host("down", "192.0.2.4", &[Tls12], &[]),
            host("six", "192.0.2.5", &[Tls12], &[]),
            host("six", "2001:db8::5", &[Tls12], &[]),
            host("moved", "2001:db8::6", &[Tls12], &[]),
        ]);
        let new = run(&[
            host("same", "192.0.2.9", &[Tls12], &["expired", "small"]),
            host("both", "192.0.2.2", &[Tls12, Tls13], &["expired"]),
            down,
            host("new", "192.0.2.6", &[Tls13], &[]),
            host("six", "192.0.2.5", &[Tls12], &[]),
            host("six", "2001:db8::5", &[], &[]),
            host("moved", "192.0.2.7", &[Tls12], &[]),
        ]);
        let changes = compare(&old, &new);
        let names = |list: &[Change]| -> Vec<String> {
            let one = |change: &Change| {
                let family = change.family.map(|family| format!(" {family}"));
                format!("{}{}", change.host, family.unwrap_or_default())
            };
            list.iter().map(one).collect()
        };
        assert_eq!(names(&changes.better), ["both"]);
        assert_eq!(
            changes.better[0].what,
            [
                "no longer speaks TLSv1.0",
                "speaks TLSv1.3",
                "weak-suite (low) is gone"
            ]
        );
        assert_eq!(names(&changes.worse), ["both", "down", "six IPv6"]);
        assert_eq!(changes.worse[0].what, ["expired (high): Why."]);
        assert_eq!(
            changes.worse[1].what,
            ["cannot be reached: connection refused"]
        );
        assert_eq!(changes.worse[2].what, ["no longer speaks TLSv1.2"]);
        assert_eq!(names(&changes.new), ["new"]);
        assert_eq!(names(&changes.gone), ["gone"]);
        assert_eq!(changes.unchanged, 3, "same, moved, and six over IPv4");
    }

    #[test]
    fn what_was_not_looked_at_is_neither_mended_nor_new() {
        use Version::Tls12;
        let whole = HostResult {
            weak: Some(vec!["AES128-SHA".to_owned()]),
            large_hello: Some(false),
            ..host(
                "a",
                "192.0.2.1",
                &[Tls12],
                &["weak-suite", "grease-refused", "tls-failed"],
            )
        };
        let quick = host("a", "192.0.2.1", &[Tls12], &["tls-failed"]);
        let (whole, quick) = (run(&[whole]), run(&[quick]));
        for (old, new) in [(&whole, &quick), (&quick, &whole)] {
            let changes = compare(old, new);
            assert!(changes.better.is_empty(), "{:?}", changes.better);
            assert!(changes.worse.is_empty(), "{:?}", changes.worse);
            assert_eq!(changes.unchanged, 1);
        }
        let mut unasked = host("a", "192.0.2.1", &[Tls12], &["tls-failed"]);
        unasked.versions = Some([(Tls12, Some(true)), (Version::Tls10, None)].into());
        let unasked = run(&[unasked]);
        for (old, new) in [(&quick, &unasked), (&unasked, &quick)] {
            assert_eq!(compare(old, new).unchanged, 1);
        }
        // A run that a server cut short says nothing of what it did not get to.
        let part = HostResult {
            error: Some("server refused EHLO: 421".to_owned()),
            ..host("a", "192.0.2.1", &[Tls12], &[])
        };
        let changes = compare(&quick, &run(&[part]));
        assert!(changes.better.is_empty(), "{:?}", changes.better);
        let mended = compare(&quick, &run(&[host("a", "192.0.2.1", &[Tls12], &[])]));
        assert_eq!(mended.better[0].what, ["tls-failed (high) is gone"]);
    }
}
