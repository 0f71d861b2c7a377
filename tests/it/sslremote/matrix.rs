//! Forged and honest answers under a signed root: what we make of them, and what
//! unbound-host does. Unbound's own verdict is the truth, and stands in the tables.
#![forbid(unsafe_code)]

use std::net::IpAddr;
use std::process::Command;
use std::sync::Arc;

use domain::base::Rtype;
use domain::base::iana::Rcode;
use ucspi_tls::internals::dns::{Dns, NoAnswer, Trust};
use ucspi_tls::internals::name::DomainName;

use super::dns::Forwarder;
use super::packet::{Packet, Record, wire, within};
use super::tree::{Denial, Tree, Zone, at, dnskey, ds, mx, record, somewhere, tag};
use crate::harness::{Place, need_root, program, skip};

/// What is to be said of a question for MX.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Verdict {
    Secure,
    Insecure,
    /// The name is there, and has none.
    None,
    /// There is no such name.
    Nobody,
    /// It is bogus, or nobody can tell: mail waits.
    Bogus,
}
use Verdict::{Bogus, Insecure, Nobody, None as Nothing, Secure};

/// A question, its verdict, and what a forger makes of the tree's answers; `None`:
/// they pass as they are.
struct Case {
    about: &'static str,
    name: &'static str,
    verdict: Verdict,
    forge: fn(&Tree, &Packet) -> Option<Packet>,
}

const DAY: i64 = 86400;
const HOST: &str = "mx";

/// The usual hosts.
fn with_hosts(zone: Zone) -> Zone {
    let name = zone.name.clone();
    let host = mx(10, &at(HOST, &name));
    let to = |host: &str| wire(&at(host, &name));
    zone.with("d", Rtype::MX, host.clone())
        .with("d", Rtype::TXT, b"\x01x".to_vec())
        .with(HOST, Rtype::A, somewhere())
        .with("empty", Rtype::TXT, b"\x01x".to_vec())
        .with("below.between", Rtype::TXT, b"\x01x".to_vec())
        .with("alias", Rtype::CNAME, to("d"))
        .with("lost", Rtype::CNAME, to("nx"))
        .with("away", Rtype::CNAME, wire("d.plain."))
        .with("home", Rtype::CNAME, wire("d.nsec."))
        .with("*.wild", Rtype::MX, host.clone())
        .with("host.wild", Rtype::TXT, b"\x01x".to_vec())
        .with("*.other", Rtype::CNAME, to("d"))
        .with("*.none", Rtype::TXT, b"\x01x".to_vec())
        .with("Moved", Rtype::DNAME, to("target"))
        .with("d.target", Rtype::MX, host)
        .with("*.shift", Rtype::DNAME, to("target"))
        .with("host.shift", Rtype::TXT, b"\x01x".to_vec())
}

/// The tree of both tables.
fn world() -> Tree {
    let hashed = |rounds, opt_out| Denial::Nsec3 { rounds, opt_out };
    let signed = |name: &str, denial| with_hosts(Zone::signed(name, denial));
    let unsigned = |name: &str| with_hosts(Zone::unsigned(name));
    let mut zones = vec![
        signed("nsec.", Denial::Nsec),
        signed("hash.", hashed(0, false)),
        signed("some.", hashed(10, false)),
        signed("rounds.", hashed(501, false)),
        signed("out.", hashed(0, true)),
        signed("old.", Denial::Nsec).valid((-30 * DAY, -2 * DAY)),
        signed("early.", Denial::Nsec).valid((2 * DAY, 30 * DAY)),
        signed("victim.", Denial::Nsec),
        unsigned("plain."),
        unsigned("strange."),
        signed("below.victim.", Denial::Nsec),
    ];
    for parent in ["nsec.", "hash.", "rounds.", "out."] {
        zones.push(signed(&at("child", parent), Denial::Nsec));
        zones.push(signed(&at("childh", parent), hashed(1, false)));
        zones.push(unsigned(&at("loose", parent)));
        // What is between has no record of its own.
        zones.push(unsigned(&at("a.ent", parent)));
        zones.push(unsigned(&at("b.c.ent2", parent)));
        zones.push(unsigned(&at("under.child", parent)));
    }
    zones.push(signed("island.plain.", Denial::Nsec));
    let mut tree = Tree::new(zones);
    // An algorithm that nobody knows: RFC 4035, 5.2.
    let root = tree.zones.iter_mut().find(|zone| zone.name == ".").unwrap();
    let digest = [&[0, 1, 200, 2][..], &[7; 32]].concat();
    root.add("strange.", Rtype::DS, digest);
    tree
}

/// Questions to an honest server.
const HONEST: &[(&str, Verdict)] = &[
    ("d.nsec.", Secure),
    ("d.hash.", Secure),
    ("d.some.", Secure),
    ("d.out.", Secure),
    ("D.nSeC.", Secure),
    ("d.child.nsec.", Secure),
    ("d.childh.nsec.", Secure),
    ("d.child.hash.", Secure),
    ("d.child.out.", Secure),
    ("d.childh.out.", Secure),
    ("d.plain.", Insecure),
    ("d.loose.nsec.", Insecure),
    ("d.loose.hash.", Insecure),
    ("d.loose.out.", Insecure),
    ("d.a.ent.nsec.", Insecure),
    ("d.a.ent.hash.", Insecure),
    // Below an empty non-terminal of an opt-out zone.
    ("d.a.ent.out.", Insecure),
    ("d.b.c.ent2.out.", Insecure),
    ("mx.a.ent.out.", Nothing),
    ("nx.a.ent.out.", Nobody),
    ("wild.b.c.ent2.out.", Nothing),
    ("alias.a.ent.out.", Insecure),
    ("any.wild.a.ent.out.", Insecure),
    ("d.under.child.nsec.", Insecure),
    ("d.under.child.out.", Insecure),
    // A DS that its own parent cannot vouch for.
    ("d.island.plain.", Insecure),
    ("nx.island.plain.", Nobody),
    ("d.strange.", Insecure),
    ("alias.nsec.", Secure),
    ("alias.hash.", Secure),
    ("away.nsec.", Insecure),
    ("home.plain.", Insecure),
    ("home.hash.", Secure),
    ("lost.nsec.", Nobody),
    ("lost.hash.", Nobody),
    ("empty.nsec.", Nothing),
    ("empty.hash.", Nothing),
    ("between.nsec.", Nothing),
    ("between.hash.", Nothing),
    ("nx.nsec.", Nobody),
    ("a.b.c.nx.nsec.", Nobody),
    ("nx.hash.", Nobody),
    ("a.b.c.nx.hash.", Nobody),
    ("nx.some.", Nobody),
    ("nx.out.", Nobody),
    ("any.wild.nsec.", Secure),
    ("a.b.wild.nsec.", Secure),
    ("any.wild.hash.", Secure),
    ("a.b.wild.hash.", Secure),
    ("any.wild.out.", Insecure),
    ("host.wild.nsec.", Nothing),
    ("host.wild.hash.", Nothing),
    ("any.other.nsec.", Secure),
    ("any.other.hash.", Secure),
    ("any.none.nsec.", Nothing),
    ("any.none.hash.", Nothing),
    // A DNAME in mixed case.
    ("d.moved.nsec.", Secure),
    ("d.MOVED.hash.", Secure),
    ("nx.moved.nsec.", Nobody),
    ("moved.nsec.", Nothing),
    // More rounds than are a proof: RFC 9276, 3.2.
    ("d.rounds.", Secure),
    ("nx.rounds.", Nobody),
    ("any.wild.rounds.", Insecure),
    ("d.loose.rounds.", Insecure),
    ("d.a.ent.rounds.", Insecure),
    ("d.old.", Bogus),
    ("nx.old.", Bogus),
    ("d.early.", Bogus),
];

fn reply(
    question: &Packet,
    rcode: Rcode,
    answers: Vec<Record>,
    authorities: Vec<Record>,
) -> Packet {
    let mut reply = question.failure(rcode);
    reply.flags |= 0x0180;
    reply.edns = question.edns;
    reply.answers = answers;
    reply.authorities = authorities;
    reply
}

/// The forger's MX, without a signature.
fn lie(question: &Packet) -> Vec<Record> {
    vec![record(&question.name, Rtype::MX, mx(1, "mx.forger."))]
}

/// The tree's answer to another question, under the name that was asked for.
fn instead(tree: &Tree, question: &Packet, other: &str) -> Packet {
    let mut found = tree.ask(other, question.kind);
    found.name.clone_from(&question.name);
    for one in &mut found.answers {
        if one.name == other {
            one.name.clone_from(&question.name);
        }
    }
    found
}

/// Below victim.out the forger answers, and denies each DS with the opt-out record
/// of the parent that covers the whole name's hash.
fn denied_by_opt_out(tree: &Tree, question: &Packet, said: Packet) -> Option<Packet> {
    if !within(&question.name, "child.out.") {
        return None;
    }
    if question.kind == Rtype::DS {
        let out = tree.zone("out.");
        let mut proof = out.sign(&tree.ask("out.", Rtype::SOA).answers[..1]);
        proof.extend(out.denier(&question.name));
        proof.extend(out.denier("out."));
        return Some(reply(question, Rcode::NOERROR, Vec::new(), proof));
    }
    Some(said)
}

fn mail_only(question: &Packet, name: &str, made: impl FnOnce() -> Packet) -> Option<Packet> {
    (question.kind == Rtype::MX && question.name.eq_ignore_ascii_case(name)).then(made)
}

/// What forgers try.
const FORGED: &[Case] = &[
    Case {
        about: "a DS denied with the parent's opt-out record, and an MX",
        name: "d.child.out.",
        verdict: Bogus,
        forge: |tree, question| {
            denied_by_opt_out(
                tree,
                question,
                reply(question, Rcode::NOERROR, lie(question), Vec::new()),
            )
        },
    },
    Case {
        about: "the same, and no such name",
        name: "mx.child.out.",
        verdict: Bogus,
        forge: |tree, question| {
            denied_by_opt_out(
                tree,
                question,
                reply(question, Rcode::NXDOMAIN, Vec::new(), Vec::new()),
            )
        },
    },
    Case {
        about: "the same, and an alias",
        name: "any.child.out.",
        verdict: Bogus,
        forge: |tree, question| {
            let alias = record(&question.name, Rtype::CNAME, wire("d.plain."));
            denied_by_opt_out(
                tree,
                question,
                reply(question, Rcode::NOERROR, vec![alias], Vec::new()),
            )
        },
    },
    Case {
        about: "an MX without a signature",
        name: "d.nsec.",
        verdict: Bogus,
        forge: |_, question| {
            mail_only(question, "d.nsec.", || {
                reply(question, Rcode::NOERROR, lie(question), Vec::new())
            })
        },
    },
    Case {
        about: "another MX under the signature",
        name: "d.nsec.",
        verdict: Bogus,
        forge: |tree, question| {
            mail_only(question, "d.nsec.", || {
                let mut found = tree.answer(question);
                found.answers[0].data = mx(10, "mx.forger.");
                found
            })
        },
    },
    Case {
        about: "one MX more beside those that are signed",
        name: "d.hash.",
        verdict: Bogus,
        forge: |tree, question| {
            mail_only(question, "d.hash.", || {
                let mut found = tree.answer(question);
                found.answers.extend(lie(question));
                found
            })
        },
    },
    Case {
        about: "an MX signed with another zone's key",
        name: "d.nsec.",
        verdict: Bogus,
        forge: |tree, question| {
            mail_only(question, "d.nsec.", || {
                reply(
                    question,
                    Rcode::NOERROR,
                    tree.zone("victim.").sign(&lie(question)),
                    Vec::new(),
                )
            })
        },
    },
    Case {
        about: "an MX signed with a child's key",
        name: "d.nsec.",
        verdict: Bogus,
        forge: |tree, question| {
            mail_only(question, "d.nsec.", || {
                reply(
                    question,
                    Rcode::NOERROR,
                    tree.zone("child.nsec.").sign(&lie(question)),
                    Vec::new(),
                )
            })
        },
    },
    Case {
        about: "an MX signed with a key of the forger's, which stands beside the zone's",
        name: "d.victim.",
        verdict: Bogus,
        forge: |tree, question| {
            let zone = tree.zone("victim.");
            // The same each time: the root's, which the tree has.
            let own = tree.zone("below.victim.").key.as_ref().unwrap();
            match question.kind {
                Rtype::DNSKEY if question.name == "victim." => {
                    let mut found = tree.answer(question);
                    found
                        .answers
                        .push(record("victim.", Rtype::DNSKEY, dnskey(own)));
                    Some(found)
                }
                Rtype::MX => {
                    let set = lie(question);
                    let signature = zone.signature(own, &set, &question.name);
                    let answers = [set, vec![signature]].concat();
                    Some(reply(question, Rcode::NOERROR, answers, Vec::new()))
                }
                _ => None,
            }
        },
    },
    Case {
        about: "a key set of the forger's, and a DS for it that is not signed",
        name: "d.victim.",
        verdict: Bogus,
        forge: |tree, question| {
            let zone = tree.zone("victim.");
            let own = tree.zone("below.victim.").key.as_ref().unwrap();
            let signed = |set: Vec<Record>| {
                let signature = zone.signature(own, &set, &question.name);
                [set, vec![signature]].concat()
            };
            let answers = match question.kind {
                Rtype::DNSKEY if question.name == "victim." => {
                    signed(vec![record("victim.", Rtype::DNSKEY, dnskey(own))])
                }
                Rtype::DS if question.name == "victim." => {
                    vec![record("victim.", Rtype::DS, ds("victim.", &dnskey(own)))]
                }
                Rtype::MX => signed(lie(question)),
                _ => return None,
            };
            Some(reply(question, Rcode::NOERROR, answers, Vec::new()))
        },
    },
    Case {
        about: "a DS of another name beside",
        name: "d.below.victim.",
        verdict: Bogus,
        forge: |tree, question| match question.kind {
            Rtype::DS if question.name == "below.victim." => {
                let mut found = tree.answer(question);
                found.answers = tree.ask("victim.", Rtype::DS).answers;
                Some(found)
            }
            _ => None,
        },
    },
    Case {
        about: "no such name, without any proof",
        name: "d.nsec.",
        verdict: Bogus,
        forge: |_, question| {
            mail_only(question, "d.nsec.", || {
                reply(question, Rcode::NXDOMAIN, Vec::new(), Vec::new())
            })
        },
    },
    Case {
        about: "no such name under a wildcard, without SOA",
        name: "any.wild.nsec.",
        verdict: Bogus,
        forge: |tree, question| {
            mail_only(question, "any.wild.nsec.", || {
                let proof = tree.zone("nsec.").denier(&question.name);
                reply(question, Rcode::NXDOMAIN, Vec::new(), proof)
            })
        },
    },
    Case {
        about: "the same with NSEC3",
        name: "any.wild.hash.",
        verdict: Bogus,
        forge: |tree, question| {
            mail_only(question, "any.wild.hash.", || {
                let zone = tree.zone("hash.");
                let proof = [zone.denier("wild.hash."), zone.denier(&question.name)].concat();
                reply(question, Rcode::NXDOMAIN, Vec::new(), proof)
            })
        },
    },
    Case {
        about: "the same with SOA",
        name: "any.wild.hash.",
        verdict: Bogus,
        forge: |tree, question| {
            mail_only(question, "any.wild.hash.", || {
                let zone = tree.zone("hash.");
                let soa = tree.ask("hash.", Rtype::SOA).answers;
                let proof = [soa, zone.denier("wild.hash."), zone.denier(&question.name)].concat();
                reply(question, Rcode::NXDOMAIN, Vec::new(), proof)
            })
        },
    },
    Case {
        about: "no such record under a wildcard, with another name's proof",
        name: "any.wild.nsec.",
        verdict: Bogus,
        forge: |tree, question| {
            mail_only(question, "any.wild.nsec.", || {
                let mut found = tree.ask("any.none.nsec.", Rtype::MX);
                found.name.clone_from(&question.name);
                found
            })
        },
    },
    Case {
        about: "a wildcard over a name that exists",
        name: "host.wild.nsec.",
        verdict: Bogus,
        forge: |tree, question| {
            mail_only(question, "host.wild.nsec.", || {
                instead(tree, question, "any.wild.nsec.")
            })
        },
    },
    Case {
        about: "the same with NSEC3",
        name: "host.wild.hash.",
        verdict: Bogus,
        forge: |tree, question| {
            mail_only(question, "host.wild.hash.", || {
                instead(tree, question, "any.wild.hash.")
            })
        },
    },
    Case {
        about: "a wildcard below a name that exists",
        name: "a.host.wild.hash.",
        verdict: Bogus,
        forge: |tree, question| {
            mail_only(question, "a.host.wild.hash.", || {
                instead(tree, question, "a.any.wild.hash.")
            })
        },
    },
    Case {
        about: "a wildcard without a proof that nothing is nearer",
        name: "any.wild.nsec.",
        verdict: Bogus,
        forge: |tree, question| {
            mail_only(question, "any.wild.nsec.", || {
                let mut found = tree.answer(question);
                found.authorities.clear();
                found
            })
        },
    },
    Case {
        about: "a wildcard DNAME over a name that exists",
        name: "sub.host.shift.nsec.",
        verdict: Bogus,
        forge: |tree, question| shifted(tree, question, "nsec."),
    },
    Case {
        about: "the same with NSEC3",
        name: "sub.host.shift.hash.",
        verdict: Bogus,
        forge: |tree, question| shifted(tree, question, "hash."),
    },
    Case {
        about: "a DNAME whose CNAME leads elsewhere",
        name: "d.moved.nsec.",
        // The CNAME is made anew from the DNAME.
        verdict: Secure,
        forge: |tree, question| {
            mail_only(question, "d.moved.nsec.", || {
                let mut found = tree.answer(question);
                found.answers.last_mut().unwrap().data = wire("d.plain.");
                found
            })
        },
    },
    Case {
        about: "an alias without a signature",
        name: "d.nsec.",
        verdict: Bogus,
        forge: |_, question| {
            mail_only(question, "d.nsec.", || {
                let alias = record(&question.name, Rtype::CNAME, wire("d.plain."));
                reply(question, Rcode::NOERROR, vec![alias], Vec::new())
            })
        },
    },
    Case {
        about: "a denial of another zone, which is not signed",
        name: "d.nsec.",
        verdict: Bogus,
        forge: |tree, question| {
            mail_only(question, "d.nsec.", || instead(tree, question, "nx.plain."))
        },
    },
    Case {
        about: "a denial of another zone, which is signed",
        name: "d.nsec.",
        verdict: Bogus,
        forge: |tree, question| {
            mail_only(question, "d.nsec.", || instead(tree, question, "nx.hash."))
        },
    },
    Case {
        about: "a denial of another name",
        name: "d.hash.",
        verdict: Bogus,
        forge: |tree, question| {
            mail_only(question, "d.hash.", || instead(tree, question, "nx.hash."))
        },
    },
    Case {
        about: "the parent's denial of what is below a delegation",
        name: "d.child.nsec.",
        verdict: Bogus,
        forge: |tree, question| {
            mail_only(question, "d.child.nsec.", || {
                let zone = tree.zone("nsec.");
                let soa = tree.ask("nsec.", Rtype::SOA).answers;
                let proof = [
                    soa,
                    zone.denier(&question.name),
                    zone.denier("*.child.nsec."),
                ]
                .concat();
                reply(question, Rcode::NXDOMAIN, Vec::new(), proof)
            })
        },
    },
    Case {
        about: "a DS denied by nobody, and no signatures below",
        name: "d.child.nsec.",
        verdict: Bogus,
        forge: |_, question| {
            let below = within(&question.name, "child.nsec.");
            below.then(|| match question.kind {
                Rtype::MX => reply(question, Rcode::NOERROR, lie(question), Vec::new()),
                _ => reply(question, Rcode::NOERROR, Vec::new(), Vec::new()),
            })
        },
    },
    Case {
        about: "records of others in the answer",
        name: "d.nsec.",
        verdict: Secure,
        forge: |tree, question| {
            mail_only(question, "d.nsec.", || {
                let mut found = tree.answer(question);
                found
                    .answers
                    .push(record("mx.nsec.", Rtype::A, somewhere()));
                found
                    .answers
                    .push(record("other.nsec.", Rtype::MX, mx(1, "mx.forger.")));
                found
            })
        },
    },
    Case {
        about: "a flood of signatures",
        name: "d.nsec.",
        verdict: Bogus,
        forge: |tree, question| {
            mail_only(question, "d.nsec.", || {
                let mut found = tree.answer(question);
                let good = found.answers.pop().unwrap();
                for number in 0..400_u16 {
                    let mut bad = good.clone();
                    let end = bad.data.len() - 2;
                    bad.data[end..].copy_from_slice(&number.to_be_bytes());
                    found.answers.push(bad);
                }
                found
            })
        },
    },
    Case {
        about: "a flood of keys with the same tag",
        name: "d.victim.",
        verdict: Bogus,
        forge: |tree, question| {
            (question.kind == Rtype::DNSKEY && question.name == "victim.").then(|| {
                let mut found = tree.answer(question);
                let key = found.answers[0].data.clone();
                let mut many = Vec::new();
                for number in 1..250_u8 {
                    let mut other = key.clone();
                    // Bytes of the same parity, whose sum stays.
                    let (first, second) = (other[4], other[6]);
                    other[4] = first.wrapping_add(number);
                    other[6] = second.wrapping_sub(number);
                    if tag(&other) == tag(&key) {
                        many.push(record("victim.", Rtype::DNSKEY, other));
                    }
                }
                assert!(many.len() > 50, "{}", many.len());
                found.answers.splice(0..0, many);
                found
            })
        },
    },
    Case {
        about: "proofs of other names for a deep one",
        name: "a.b.c.d.e.f.g.h.i.j.k.l.m.n.o.p.q.r.s.t.u.v.w.x.y.z.some.",
        verdict: Bogus,
        forge: |tree, question| {
            (question.kind == Rtype::MX).then(|| {
                let mut found = tree.answer(question);
                // The proof's name exists, and others stand before it.
                let zone = tree.zone("some.");
                found.authorities.retain(|one| one.kind == Rtype::SOA);
                for host in [
                    "d", "alias", "empty", "wild", "lost", "away", "home", "other",
                ] {
                    found.authorities.extend(zone.denier(&at(host, "some.")));
                }
                found
            })
        },
    },
];

/// The wildcard DNAME of a zone, for a name below one that exists.
fn shifted(tree: &Tree, question: &Packet, zone: &str) -> Option<Packet> {
    mail_only(question, &at("sub.host.shift", zone), || {
        let zone = tree.zone(zone);
        let wild = at("*.shift", &zone.name);
        let set = [record(&wild, Rtype::DNAME, wire(&at("target", &zone.name)))];
        let mut answers = zone.sign_as(&set, &at("host.shift", &zone.name));
        let target = wire(&at("sub.target", &zone.name));
        answers.push(record(&question.name, Rtype::CNAME, target));
        reply(question, Rcode::NOERROR, answers, Vec::new())
    })
}

/// Ours.
fn ours(place: &Place, server: IpAddr, name: &str) -> Verdict {
    let trust = Trust::read(&place.path("")).unwrap();
    let dns = Dns::new(&[server], trust).unwrap();
    match dns.exchangers(&DomainName::parse(name.as_bytes()).unwrap()) {
        Ok(found) if found.secure => Secure,
        Ok(_) => Insecure,
        Err(NoAnswer::NoRecords) => Nothing,
        Err(NoAnswer::NoSuchName) => Nobody,
        Err(NoAnswer::Temporary(_) | NoAnswer::Bogus(_)) => Bogus,
    }
}

/// Unbound's.
fn judged(place: &Place, server: IpAddr, name: &str) -> Verdict {
    let config = place.write(
        &format!("judge-{server}.conf"),
        format!(
            "server:\n do-not-query-localhost: no\n trust-anchor-file: \"{}\"\n\
             forward-zone:\n name: \".\"\n forward-addr: {server}\n",
            place.text("dnssecanchors")
        ),
    );
    let words = ["-v", "-C", &config, "-t", "MX", name];
    let output = Command::new(program("unbound-host").unwrap())
        .args(words)
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    let says = |word: &str| said.contains(word);
    match () {
        () if says("(BOGUS") || says("SERVFAIL") => Bogus,
        () if says("NXDOMAIN") => Nobody,
        () if says("has no mail handler record") => Nothing,
        () if says("(secure)") => Secure,
        () if says("(insecure)") => Insecure,
        () => panic!("{name}: {said} {}", String::from_utf8_lossy(&output.stderr)),
    }
}

/// One server for a table of questions, or one for each.
fn hold(
    place: &Place,
    about: &str,
    server: IpAddr,
    name: &str,
    verdict: Verdict,
) -> Option<String> {
    let (judged, ours) = (judged(place, server, name), ours(place, server, name));
    let as_it_should_be = (judged, ours) == (verdict, verdict);
    (!as_it_should_be).then(|| {
        format!("{about}: {name}: wanted {verdict:?}, unbound says {judged:?}, we say {ours:?}")
    })
}

#[test]
fn honest_answers_are_what_unbound_says() {
    need_root!();
    if program("unbound-host").is_none() {
        skip!("unbound-host is not installed");
    }
    let place = Place::new("dnssec-honest");
    let tree = world();
    place.write("dnssecanchors", tree.anchors());
    let server = Forwarder::start(move |question| Some(tree.answer(question)));
    let wrong: Vec<String> = HONEST
        .iter()
        .filter_map(|(name, verdict)| hold(&place, "honest", server.ip, name, *verdict))
        .collect();
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn forged_answers_are_what_unbound_says() {
    need_root!();
    if program("unbound-host").is_none() {
        skip!("unbound-host is not installed");
    }
    let place = Place::new("dnssec-forged-answers");
    let tree = Arc::new(world());
    place.write("dnssecanchors", tree.anchors());
    let mut wrong = Vec::new();
    for case in FORGED {
        let tree = Arc::clone(&tree);
        let forge = case.forge;
        let server = Forwarder::start(move |question| {
            Some(forge(&tree, question).unwrap_or_else(|| tree.answer(question)))
        });
        wrong.extend(hold(&place, case.about, server.ip, case.name, case.verdict));
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}
